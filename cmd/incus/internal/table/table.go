// Package table prints lists the way scripts and people know them from Incus: as a
// drawn table, in a compact form, as Markdown or CSV, or as the JSON or YAML of the
// objects themselves.
//
// The layout is fixed byte by byte (the files in testdata); a cell may have several
// lines. Rows are sorted naturally, so that node2 stands before node10.
package table

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kinds of output.
const (
	Table    = "table"
	Compact  = "compact"
	Markdown = "markdown"
	CSV      = "csv"
	JSON     = "json"
	YAML     = "yaml"
)

// Kinds lists them for help texts and shell completion.
func Kinds() []string { return []string{CSV, JSON, Table, YAML, Compact, Markdown} }

// A Format is the value of a --format flag: a kind and whether there is a header.
type Format struct {
	Kind   string
	Header bool
	text   string
}

// Parse reads a kind with an optional ",header" or ",noheader". Only CSV has no
// header unless asked for.
func Parse(text string) (Format, error) {
	kind, option, hasOption := strings.Cut(text, ",")
	f := Format{Kind: kind, Header: kind != CSV, text: text}
	if !slices.Contains(Kinds(), kind) {
		return Format{}, fmt.Errorf("Invalid format %q: use one of %s", text, strings.Join(Kinds(), ", "))
	}
	switch {
	case !hasOption:
	case option == "header":
		f.Header = true
	case option == "noheader":
		f.Header = false
	default:
		return Format{}, fmt.Errorf("Invalid format %q: %q is neither header nor noheader", text, option)
	}
	return f, nil
}

// Separator is what stands between the parts of a cell that is a list. Plain "csv"
// keeps them on one line; "csv,header" never did, and scripts may rely on either.
func (f Format) Separator() string {
	if f.text == CSV {
		return ","
	}
	return "\n"
}

// Write prints rows under header, or objects where the format is JSON or YAML. It
// sorts rows in place.
func Write(w io.Writer, f Format, header []string, rows [][]string, objects any) error {
	slices.SortStableFunc(rows, compareRows)
	switch f.Kind {
	case JSON:
		return json.NewEncoder(w).Encode(objects)
	case YAML:
		return WriteYAML(w, objects)
	case CSV:
		return writeCSV(w, f, header, rows)
	default:
		_, err := io.WriteString(w, draw(f, header, rows))
		return err
	}
}

// WriteYAML prints one object as YAML with the indentation of all our output.
func WriteYAML(w io.Writer, object any) error {
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(object); err != nil {
		return err
	}
	return e.Close()
}

func writeCSV(w io.Writer, f Format, header []string, rows [][]string) error {
	out := csv.NewWriter(w)
	if f.Header {
		rows = append([][]string{header}, rows...)
	}
	return out.WriteAll(rows)
}

// A style is what the drawn kinds differ in.
type style struct {
	edge, between string // of a line
	center        bool   // cells, not only the header
	rule          func(widths []int) string
	outer, inner  bool // a rule around the table, between its rows
}

var styles = map[string]style{
	Table:    {edge: "|", between: "|", rule: plainRule, outer: true, inner: true},
	Compact:  {rule: noRule},
	Markdown: {edge: "|", between: "|", center: true, rule: markdownRule},
}

func plainRule(widths []int) string {
	var b strings.Builder
	b.WriteByte('+')
	for _, n := range widths {
		b.WriteString(strings.Repeat("-", n+2) + "+")
	}
	return b.String() + "\n"
}

func markdownRule(widths []int) string {
	var b strings.Builder
	b.WriteByte('|')
	for _, n := range widths {
		b.WriteString(":" + strings.Repeat("-", n) + ":|")
	}
	return b.String() + "\n"
}

func noRule([]int) string { return "" }

// draw lays out the table, compact and Markdown kinds.
func draw(f Format, header []string, rows [][]string) string {
	if !f.Header && len(rows) == 0 {
		return ""
	}
	s := styles[f.Kind]
	widths := columnWidths(f, header, rows)
	var b strings.Builder
	if s.outer {
		b.WriteString(s.rule(widths))
	}
	if f.Header {
		writeRow(&b, s, true, widths, header)
		b.WriteString(s.rule(widths))
	}
	for i, row := range rows {
		writeRow(&b, s, s.center, widths, row)
		if s.inner || s.outer && i == len(rows)-1 {
			b.WriteString(s.rule(widths))
		}
	}
	return b.String()
}

func columnWidths(f Format, header []string, rows [][]string) []int {
	widths := make([]int, len(header))
	if f.Header {
		rows = append([][]string{header}, rows...)
	}
	for _, row := range rows {
		for i, cell := range row {
			for line := range strings.SplitSeq(cell, "\n") {
				widths[i] = max(widths[i], width(line))
			}
		}
	}
	return widths
}

// writeRow writes one row, of as many lines as its highest cell has.
func writeRow(b *strings.Builder, s style, center bool, widths []int, row []string) {
	cells := make([][]string, len(row))
	height := 1
	for i, cell := range row {
		cells[i] = strings.Split(cell, "\n")
		height = max(height, len(cells[i]))
	}
	for n := range height {
		b.WriteString(s.edge)
		for i, lines := range cells {
			if i > 0 {
				b.WriteString(s.between)
			}
			text := ""
			if n < len(lines) {
				text = lines[n]
			}
			b.WriteString(" " + pad(text, widths[i], center) + " ")
		}
		b.WriteString(s.edge + "\n")
	}
}

// pad fills text up to n columns; centred text leans to the left.
func pad(text string, n int, center bool) string {
	gap, left := n-width(text), 0
	if center {
		left = gap / 2
	}
	return strings.Repeat(" ", left) + text + strings.Repeat(" ", gap-left)
}

// wide lists the characters that take two columns of a terminal: those of East
// Asian scripts and the pictographs.
var wide = [][2]rune{
	{0x1100, 0x115F}, {0x2E80, 0x303E}, {0x3041, 0xA4CF}, {0xAC00, 0xD7A3}, {0xF900, 0xFAFF},
	{0xFE30, 0xFE6F}, {0xFF00, 0xFF60}, {0xFFE0, 0xFFE6}, {0x1F300, 0x1F64F}, {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD},
}

// width is the number of columns that text takes.
func width(text string) int {
	n := 0
	for _, r := range text {
		n++
		for _, w := range wide {
			if r >= w[0] && r <= w[1] {
				n++
				break
			}
		}
	}
	return n
}
