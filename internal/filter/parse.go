package filter

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"incusd/api"
)

// Bounds of an expression.
const (
	// MaxLength is in bytes.
	MaxLength = 8192
	// MaxClauses is how many comparisons one expression may have.
	MaxClauses = 128
	// MaxValue is the length of one value, in bytes.
	MaxValue = 512
	// MaxRepeat is how often a regular expression may ask for the same thing: x{100}.
	MaxRepeat = 100
	// MaxProgram bounds the regular expressions of one expression together, in
	// instructions of the programs that they become. A name takes a dozen.
	MaxProgram = 1000
)

// Operators of a clause.
const (
	equal        = "eq"
	notEqual     = "ne"
	greater      = "gt"
	less         = "lt"
	greaterEqual = "ge"
	lessEqual    = "le"
)

var operators = []string{equal, notEqual, greater, less, greaterEqual, lessEqual}

// A Filter is a parsed expression. It may be used by several goroutines at once.
type Filter struct {
	clauses []clause
}

// A clause is one comparison and how it joins those before it.
type clause struct {
	or, not bool
	field   string
	op      string
	value   string

	// What the value is when it is compared with a string: a list, or a pattern. Whether
	// it is, depends on the field, so patternErr waits until one is compared.
	list       []string
	pattern    *regexp.Regexp
	patternErr error
}

// Parse reads an expression. The empty one matches everything. It fails with
// api.BadRequest and the texts of the protocol.
func Parse(expr string) (*Filter, error) {
	if len(expr) > MaxLength {
		return nil, invalid("longer than %d bytes", MaxLength)
	}
	f := &Filter{}
	room := MaxProgram
	for s, or := (&scanner{expr}), false; !s.done(); {
		if len(f.clauses) == MaxClauses {
			return nil, invalid("more than %d clauses", MaxClauses)
		}
		c, err := parseClause(s)
		if err != nil {
			return nil, err
		}
		if room, err = c.prepare(room); err != nil {
			return nil, err
		}
		c.or = or
		f.clauses = append(f.clauses, c)
		if or, err = parseJoint(s); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func invalid(format string, args ...any) error {
	return api.Errorf(api.BadRequest, "Invalid filter: "+format, args...).
		WithHint("a filter is FIELD OP VALUE, with eq, ne, gt, lt, ge or le, joined by and, or: server_name eq node1 and status eq online")
}

func parseClause(s *scanner) (c clause, err error) {
	if word := s.word(); strings.EqualFold(word, "not") {
		c.not = true
		if s.done() {
			return c, invalid("incomplete not clause")
		}
		c.field = s.word()
	} else {
		c.field = word
	}
	if s.done() {
		return c, invalid("clause has no operator")
	}
	word := s.word()
	c.op = strings.ToLower(word)
	if !slices.Contains(operators, c.op) {
		return c, invalid("unsupported operator %q", word)
	}
	if s.done() {
		return c, invalid("clause has no value")
	}
	var ok bool
	if c.value, ok = s.value(); !ok {
		return c, invalid("unterminated quote")
	}
	if len(c.value) > MaxValue {
		return c, invalid("value longer than %d bytes", MaxValue)
	}
	return c, nil
}

// parseJoint reads what stands between two clauses; at the end there is none.
func parseJoint(s *scanner) (or bool, err error) {
	if s.done() {
		return false, nil
	}
	joint := strings.ToLower(s.word())
	if joint != "and" && joint != "or" {
		return false, invalid("invalid clause composition")
	}
	if s.done() {
		return false, invalid("unterminated compound clause")
	}
	return joint == "or", nil
}

// A scanner takes words off the front of an expression.
type scanner struct{ rest string }

// done tells whether only white space is left.
func (s *scanner) done() bool {
	s.rest = strings.TrimLeftFunc(s.rest, unicode.IsSpace)
	return s.rest == ""
}

func (s *scanner) word() string {
	s.done()
	end := strings.IndexFunc(s.rest, unicode.IsSpace)
	if end < 0 {
		end = len(s.rest)
	}
	word := s.rest[:end]
	s.rest = s.rest[end:]
	return word
}

// value is a word, or what stands in double quotes. It is false if the quote does not
// end. A quote ends at a double quote before white space or the end, so that JSON may
// stand in it.
func (s *scanner) value() (string, bool) {
	s.done()
	quoted, ok := strings.CutPrefix(s.rest, `"`)
	if !ok {
		return s.word(), true
	}
	for at := 0; ; at++ {
		next := strings.IndexByte(quoted[at:], '"')
		if next < 0 {
			return "", false
		}
		at += next
		after, _ := utf8.DecodeRuneInString(quoted[at+1:])
		if at+1 == len(quoted) || unicode.IsSpace(after) {
			s.rest = quoted[at+1:]
			return quoted[:at], true
		}
	}
}
