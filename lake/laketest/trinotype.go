package laketest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// trinoType is the Iceberg type that one of Trino's stands for.
func trinoType(t string) string {
	head, args, _ := strings.Cut(t, "(")
	inner := typeArgs(head + "<" + strings.TrimSuffix(args, ")") + ">")
	switch {
	case head == "array":
		return "list<" + trinoType(inner[0]) + ">"
	case head == "map":
		return "map<" + trinoType(inner[0]) + ", " + trinoType(inner[1]) + ">"
	case head == "row":
		for i, f := range inner {
			name, typ, _ := strings.Cut(f, " ")
			inner[i] = strings.Trim(name, `"`) + ": " + trinoType(typ)
		}
		return "struct<" + strings.Join(inner, ", ") + ">"
	case head == "decimal":
		return "decimal(" + strings.Join(inner, ", ") + ")"
	case head == "timestamp" && strings.HasSuffix(t, "with time zone"):
		return "timestamptz"
	}
	switch head {
	case "tinyint", "smallint", "integer":
		return "int"
	case "bigint":
		return "long"
	case "real":
		return "float"
	case "varbinary":
		return "binary"
	case "varchar", "char", "unknown":
		return "string"
	}
	return head // boolean, double, date, time, timestamp, uuid
}

// trinoValue brings a value of Trino's JSON to what canonical takes: text, nil,
// or nested slices and maps of it.
func trinoValue(typ string, v any) any {
	switch v := v.(type) {
	case bool:
		return fmt.Sprint(v)
	case json.Number:
		return v.String()
	case string:
		return trinoText(typ, v)
	case []any:
		inner := typeArgs(typ)
		if strings.HasPrefix(typ, "struct<") {
			row := map[string]any{}
			for i, f := range inner {
				name, t, _ := strings.Cut(f, ": ")
				row[name] = trinoValue(t, v[i])
			}
			return row
		}
		for i := range v {
			v[i] = trinoValue(inner[0], v[i])
		}
		return v
	case map[string]any:
		inner := typeArgs(typ)
		pairs := []any{}
		for k, x := range v {
			pairs = append(pairs, []any{trinoText(inner[0], k), trinoValue(inner[1], x)})
		}
		return pairs
	}
	return v
}

func trinoText(typ, text string) string {
	switch typ {
	case "binary":
		if b, err := base64.StdEncoding.DecodeString(text); err == nil {
			return hex.EncodeToString(b)
		}
	case "time":
		return sixDigits(text)
	case "timestamp", "timestamptz":
		text, zoned := strings.CutSuffix(strings.TrimPrefix(text, "+"), " UTC")
		if date, clock, ok := strings.Cut(text, " "); ok {
			text = date + " " + sixDigits(clock)
		}
		if zoned {
			text += "Z"
		}
		return text
	case "date":
		return strings.TrimPrefix(text, "+")
	}
	return text
}
