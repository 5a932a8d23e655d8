package snapshot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/puffin"
)

// A deletion vector is a roaring bitmap of 64-bit positions in a
// deletion-vector-v1 blob of a Puffin file (Iceberg spec, "Deletion vectors").
// Positions of one data file fit 32 bits here, so there is one 32-bit bitmap.
const (
	vectorMagic    = 0x6439D3D1
	vectorOverhead = 4 + 4 + 8 + 4 + 4 // length, magic, count, key; crc at the end
	rowPositionID  = 2147483645        // Iceberg's reserved id of _pos
)

// encodeVector is the blob of a bitmap, which is not altered.
func encodeVector(rows *roaring.Bitmap) ([]byte, error) {
	rows = rows.Clone()
	rows.RunOptimize()
	body, err := rows.ToBytes()
	if err != nil {
		return nil, fmt.Errorf("encode deletion vector: %w", err)
	}
	b := make([]byte, 0, vectorOverhead+len(body))
	b = binary.BigEndian.AppendUint32(b, uint32(4+8+4+len(body)))
	b = binary.LittleEndian.AppendUint32(b, vectorMagic)
	b = binary.LittleEndian.AppendUint64(b, 1)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(b, body...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:])), nil
}

// decodeVector reads a blob of the given cardinality.
func decodeVector(b []byte, cardinality int64) (*roaring.Bitmap, error) {
	if len(b) < 20 || int64(binary.BigEndian.Uint32(b)) != int64(len(b)-8) {
		return nil, fmt.Errorf("decode deletion vector: its length is wrong")
	}
	if binary.LittleEndian.Uint32(b[4:]) != vectorMagic {
		return nil, fmt.Errorf("decode deletion vector: its magic is wrong")
	}
	end := len(b) - 4
	if binary.BigEndian.Uint32(b[end:]) != crc32.ChecksumIEEE(b[4:end]) {
		return nil, fmt.Errorf("decode deletion vector: its checksum is wrong")
	}
	count := binary.LittleEndian.Uint64(b[8:])
	rows := roaring.New()
	if count > 0 {
		if count > 1 || end < 20 || binary.LittleEndian.Uint32(b[16:]) != 0 {
			return nil, fmt.Errorf("decode deletion vector: it has positions beyond 32 bits")
		}
		n, err := rows.ReadFrom(bytes.NewReader(b[20:end]))
		if err != nil {
			return nil, fmt.Errorf("decode deletion vector: %w", err)
		}
		if n != int64(end-20) {
			return nil, fmt.Errorf("decode deletion vector: %d bytes follow it", int64(end-20)-n)
		}
	}
	if got := rows.GetCardinality(); got != uint64(cardinality) {
		return nil, fmt.Errorf("decode deletion vector: %d positions, its entry says %d", got, cardinality)
	}
	return rows, nil
}

// vectors encodes one Puffin file with a vector for each data file, and their
// entries, in the order of files.
func (p *prepared) vectors(files []*dataFile, rows []*roaring.Bitmap) error {
	if len(files) == 0 {
		return nil
	}
	key, uri := p.t.dataName("-dv.puffin")
	var out bytes.Buffer
	w, err := puffin.NewWriter(&out)
	if err != nil {
		return fmt.Errorf("start Puffin file: %w", err)
	}
	if err := w.SetCreatedBy("firn"); err != nil {
		return fmt.Errorf("start Puffin file: %w", err)
	}
	blobs := make([]puffin.BlobMetadata, len(files))
	for i, f := range files {
		blob, err := encodeVector(rows[i])
		if err != nil {
			return err
		}
		blobs[i], err = w.AddBlob(puffin.BlobMetadataInput{
			Type: puffin.BlobTypeDeletionVector, SnapshotID: -1, SequenceNumber: -1, Fields: []int32{rowPositionID},
			Properties: map[string]string{
				"cardinality":          strconv.FormatUint(rows[i].GetCardinality(), 10),
				"referenced-data-file": f.path,
			},
		}, blob)
		if err != nil {
			return fmt.Errorf("add deletion vector of %s: %w", f.path, err)
		}
	}
	if err := w.Finish(); err != nil {
		return fmt.Errorf("finish Puffin file: %w", err)
	}
	p.objects = append(p.objects, upload{key, out.Bytes()})
	for i, f := range files {
		spec, err := p.meta.spec(f.entry.file.SpecID())
		if err != nil {
			return err
		}
		count := rows[i].GetCardinality()
		b, err := iceberg.NewDataFileBuilder(spec, iceberg.EntryContentPosDeletes, uri, iceberg.PuffinFile,
			f.entry.file.Partition(), nil, nil, int64(count), int64(out.Len()))
		if err != nil {
			return fmt.Errorf("describe deletion vector of %s: %w", f.path, err)
		}
		df := b.ReferencedDataFile(f.path).ContentOffset(blobs[i].Offset).ContentSizeInBytes(blobs[i].Length).Build()
		p.addDeletes = append(p.addDeletes, &deleteFile{
			entry: newEntry(df, p.snapshotID, p.sequence), partition: f.partition, vector: true,
			rows: map[string]*roaring.Bitmap{f.path: nil}, count: count,
		})
	}
	return nil
}
