package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// WriteJSON writes the differences as JSON, an object a line: first the Diff,
// then the rows, as {"change":"updated","old":{…},"new":{…}} (inserted without
// old, deleted without new), and last the Counts.
func (d *Diff) WriteJSON(ctx context.Context, out io.Writer) (Counts, error) {
	w := bufio.NewWriterSize(out, 64<<10)
	object := func(v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("write differences: %w", err)
		}
		_, err = w.Write(append(b, '\n'))
		return err
	}
	if err := object(d); err != nil {
		return Counts{}, err
	}
	names := make([][]byte, len(d.columns))
	for i, c := range d.columns {
		var err error
		if names[i], err = appendQuoted(nil, c.name); err != nil {
			return Counts{}, err
		}
	}
	var line []byte
	row := func(side string, rec arrow.RecordBatch, r int) (err error) {
		if rec == nil {
			return nil
		}
		line = append(line, `,"`+side+`":{`...)
		for i, c := range rec.Columns() {
			if i > 0 {
				line = append(line, ',')
			}
			line = append(append(line, names[i]...), ':')
			if line, err = appendValue(line, c, r, false); err != nil {
				return fmt.Errorf("column %s: %w", d.columns[i].name, err)
			}
		}
		line = append(line, '}')
		return nil
	}
	counts, err := d.Rows(ctx, func(c Changes) error {
		kind, _, rows := c.kind()
		for r := range rows {
			line = append(line[:0], `{"change":"`+kind+`"`...)
			if err := errors.Join(row("old", c.Old, r), row("new", c.New, r)); err != nil {
				return err
			}
			if _, err := w.Write(append(line, "}\n"...)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = object(counts)
	}
	return counts, errors.Join(err, w.Flush())
}

// kind names what happened to the rows, by a word and a sign.
func (c Changes) kind() (word, sign string, rows int) {
	switch {
	case c.Old == nil:
		return "inserted", "+", int(c.New.NumRows())
	case c.New == nil:
		return "deleted", "-", int(c.Old.NumRows())
	}
	return "updated", "~", int(c.New.NumRows())
}

// WriteText writes the differences for people, with at most limit rows (0:
// all). Long values are cut.
func (d *Diff) WriteText(ctx context.Context, out io.Writer, limit int64) (counts Counts, err error) {
	// The counts come first, so the rows have to wait.
	f, err := unnamed(d.o.TempDir)
	if err != nil {
		return Counts{}, fmt.Errorf("put rows aside: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	rows := bufio.NewWriter(f)
	var shown int64
	counts, err = d.Rows(ctx, func(c Changes) error {
		_, _, n := c.kind()
		for i := range n {
			if limit > 0 && shown == limit {
				return nil
			}
			shown++
			line, err := d.textOf(c, i)
			if err != nil {
				return err
			}
			if _, err := rows.WriteString(line + "\n"); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = rows.Flush()
	}
	if err != nil {
		return counts, err
	}
	fmt.Fprintf(out, "%s from %s to %s\n", d.Table, d.From, d.To)
	for _, note := range d.Notes {
		fmt.Fprintf(out, "note: %s\n", note)
	}
	fmt.Fprintf(out, "%s\n", counts)
	if shown > 0 {
		fmt.Fprintln(out)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return counts, fmt.Errorf("print rows: %w", err)
	}
	if _, err := io.Copy(out, f); err != nil {
		return counts, fmt.Errorf("print rows: %w", err)
	}
	if more := counts.Inserted + counts.Updated + counts.Deleted - shown; more > 0 {
		fmt.Fprintf(out, "and %d more; --limit 0 shows all\n", more)
	}
	return counts, nil
}

func (p Point) String() string {
	return fmt.Sprintf("epoch %d (%s, %s)", p.Epoch, p.LSN, p.Time.UTC().Format("2006-01-02 15:04:05.000Z"))
}

func (c Counts) String() string {
	return fmt.Sprintf("%d inserted, %d updated, %d deleted", c.Inserted, c.Updated, c.Deleted)
}

// textOf is one row's line.
func (d *Diff) textOf(c Changes, row int) (string, error) {
	word, sign, _ := c.kind()
	var parts, key []string
	for i, column := range d.columns {
		value := func(rec arrow.RecordBatch) (string, error) {
			text, err := appendValue(nil, rec.Column(i), row, true)
			if err != nil {
				return "", fmt.Errorf("column %s: %w", column.name, err)
			}
			return string(text), nil
		}
		rec := c.New
		if rec == nil {
			rec = c.Old
		}
		text, err := value(rec)
		if err != nil {
			return "", err
		}
		isKey := slices.Contains(d.key, i)
		switch {
		case word == "updated" && !isKey:
			before, err := value(c.Old)
			if err != nil {
				return "", err
			}
			if before != text {
				parts = append(parts, column.name+" "+clip(before)+" → "+clip(text))
			}
		case word == "updated":
			key = append(key, column.name+"="+clip(text))
		default:
			parts = append(parts, column.name+"="+clip(text))
		}
	}
	if word == "updated" {
		return sign + " " + strings.Join(key, ", ") + ": " + strings.Join(parts, ", "), nil
	}
	return sign + " " + strings.Join(parts, ", "), nil
}

// clip cuts a long value.
func clip(s string) string {
	const most = 80
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

// changeColumn says what a row of WriteParquet's file is, in the words of
// Iceberg's changelog views.
const changeColumn = "_change_type"

// groupBytesMax bounds a row group of WriteParquet's file before it is encoded.
const groupBytesMax = 64 << 20

// WriteParquet writes the differences as one Parquet file: the table's columns
// after _change_type, which is INSERT, DELETE, UPDATE_BEFORE or UPDATE_AFTER.
// The two rows of an update have the same key; the second need not follow the
// first.
func (d *Diff) WriteParquet(ctx context.Context, out io.Writer) (Counts, error) {
	if len(d.schema.FieldIndices(changeColumn)) > 0 {
		return Counts{}, fmt.Errorf("write differences: the table has a column %s of its own", changeColumn)
	}
	fields := append([]arrow.Field{{Name: changeColumn, Type: arrow.BinaryTypes.String}}, d.schema.Fields()...)
	schema := arrow.NewSchema(fields, nil)
	w, err := pqarrow.NewFileWriter(schema, out,
		parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd), parquet.WithMaxRowGroupLength(128<<10)),
		pqarrow.DefaultWriterProps())
	if err != nil {
		return Counts{}, fmt.Errorf("write differences: %w", err)
	}
	var group int64 // bytes in the open row group, as they are in memory
	write := func(kind string, rec arrow.RecordBatch) error {
		if rec == nil {
			return nil
		}
		b := array.NewStringBuilder(d.o.Allocator)
		defer b.Release()
		for range rec.NumRows() {
			b.Append(kind)
		}
		kinds := b.NewArray()
		defer kinds.Release()
		all := array.NewRecordBatch(schema, append([]arrow.Array{kinds}, rec.Columns()...), rec.NumRows())
		defer all.Release()
		// A row group is in memory until it ends.
		if group += sizeOf(all); group > groupBytesMax {
			group = sizeOf(all)
			if err := w.NewBufferedRowGroupChecked(); err != nil {
				return err
			}
		}
		return w.WriteBuffered(all)
	}
	counts, err := d.Rows(ctx, func(c Changes) error {
		before, after := "UPDATE_BEFORE", "UPDATE_AFTER"
		switch {
		case c.Old == nil:
			after = "INSERT"
		case c.New == nil:
			before = "DELETE"
		}
		return errors.Join(write(before, c.Old), write(after, c.New))
	})
	for _, kv := range [][2]string{
		{"firn.table", d.Table},
		{"firn.from.epoch", strconv.FormatUint(d.From.Epoch, 10)}, {"firn.from.lsn", d.From.LSN.String()},
		{"firn.to.epoch", strconv.FormatUint(d.To.Epoch, 10)}, {"firn.to.lsn", d.To.LSN.String()},
	} {
		err = errors.Join(err, w.AppendKeyValueMetadata(kv[0], kv[1]))
	}
	if cerr := w.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("write differences: %w", cerr))
	}
	return counts, err
}
