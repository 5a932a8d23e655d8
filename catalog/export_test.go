package catalog

import "encoding/json"

// Dump is all of a state, whichever full entry it builds on.
func Dump(s *State) string {
	e := s.entry(kindFull)
	b, err := json.MarshalIndent(e, "", " ")
	if err != nil {
		panic(err)
	}
	return string(b)
}

var EntryKey = entryKey

// EntryKind tells what an entry's bytes are: full or delta.
func EntryKind(number uint64, data []byte) (string, error) {
	e, err := decodeEntry(number, data)
	if err != nil {
		return "", err
	}
	return e.Kind, nil
}

// DecodeEntry is for fuzzing: any bytes make a state or an error.
func DecodeEntry(number uint64, data []byte) error {
	e, err := decodeEntry(number, data)
	if err != nil {
		return err
	}
	Dump(e.state(nil, len(data)))
	return nil
}
