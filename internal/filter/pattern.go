package filter

import (
	"regexp"
	"regexp/syntax"
	"strings"
)

// prepare makes of the value what a string is compared with. room is how large the
// program of a regular expression may be; prepare returns how much of it is left.
func (c *clause) prepare(room int) (left int, err error) {
	if c.op != equal && c.op != notEqual {
		return room, nil
	}
	if strings.Contains(c.value, ",") {
		c.list = append(strings.Split(c.value, ","), c.value)
		return room, nil
	}
	expr := c.value
	if !strings.ContainsAny(expr, "^$") {
		// The group keeps alternatives together: ^a|b$ would be something else.
		expr = "^(?:" + expr + ")$"
	}
	expr = "(?i)" + expr
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		c.patternErr = err
		return room, nil
	}
	size, err := programSize(parsed)
	if err != nil {
		return 0, err
	}
	if size > room {
		return 0, invalid("regular expression too large")
	}
	c.pattern, c.patternErr = regexp.Compile(expr)
	return room - size, nil
}

// programSize estimates what a regular expression costs, in instructions, without
// writing its repetitions out. It fails for more than MaxRepeat of them.
func programSize(re *syntax.Regexp) (int, error) {
	size := 1
	switch re.Op {
	case syntax.OpLiteral:
		size = len(re.Rune)
	case syntax.OpCharClass:
		size += len(re.Rune) / 16 // a class of scripts has hundreds of ranges
	}
	for _, sub := range re.Sub {
		n, err := programSize(sub)
		if err != nil {
			return 0, err
		}
		size += n
	}
	if re.Op == syntax.OpRepeat {
		times := max(re.Min, re.Max)
		if times > MaxRepeat {
			return 0, invalid("regular expression repeats more than %d times", MaxRepeat)
		}
		size *= max(times, 1)
	}
	return size, nil
}
