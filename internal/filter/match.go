package filter

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Match tells whether obj, a struct of the wire or a pointer to one, satisfies the
// filter. It fails with api.BadRequest for a field that obj does not have, or that has
// a type or value with which the clause cannot be compared.
func (f *Filter) Match(obj any) (bool, error) {
	match := true
	for i := range f.clauses {
		c := &f.clauses[i]
		// Every clause is evaluated, so that a mistake is told whatever the data.
		this, err := c.match(lookup(reflect.ValueOf(obj), c.field))
		if err != nil {
			return false, err
		}
		this = this != c.not
		if c.or {
			match = match || this
		} else {
			match = match && this
		}
	}
	return match, nil
}

func (c *clause) match(v reflect.Value) (bool, error) {
	switch v.Kind() {
	case reflect.String:
		return c.matchString(v.String())
	case reflect.Bool:
		return c.matchBool(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		want, err := strconv.ParseInt(c.value, 10, 64)
		if err != nil {
			return false, c.unparsable(err)
		}
		return c.compare(cmp.Compare(v.Int(), want)), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		want, err := strconv.ParseUint(c.value, 10, 64)
		if err != nil {
			return false, c.unparsable(err)
		}
		return c.compare(cmp.Compare(v.Uint(), want)), nil
	case reflect.Slice:
		return c.matchSlice(v)
	}
	return false, invalidType(v.Kind().String(), c.field)
}

func invalidType(kind, field string) error {
	return invalidEvaluation("Invalid type %q for field %q", kind, field)
}

func (c *clause) unparsable(err error) error {
	return invalidEvaluation("Failed to parse value: %v", err)
}

// equality refuses operators that need an order where there is none.
func (c *clause) equality() error {
	if c.op != equal && c.op != notEqual {
		return invalidEvaluation("Invalid operator %q for field %q", c.op, c.field)
	}
	return nil
}

// compare turns an order, as of cmp.Compare, into the clause's answer.
func (c *clause) compare(order int) bool {
	switch c.op {
	case equal:
		return order == 0
	case notEqual:
		return order != 0
	case greater:
		return order > 0
	case less:
		return order < 0
	case greaterEqual:
		return order >= 0
	default:
		return order <= 0
	}
}

func (c *clause) matchString(s string) (bool, error) {
	if err := c.equality(); err != nil {
		return false, err
	}
	if c.patternErr != nil {
		return false, invalid("%v", c.patternErr)
	}
	var same bool
	if c.pattern != nil {
		same = c.pattern.MatchString(s)
	} else {
		same = slices.ContainsFunc(c.list, func(want string) bool { return strings.EqualFold(s, want) })
	}
	return same == (c.op == equal), nil
}

func (c *clause) matchBool(b bool) (bool, error) {
	if err := c.equality(); err != nil {
		return false, err
	}
	want, err := strconv.ParseBool(c.value)
	if err != nil {
		return false, c.unparsable(err)
	}
	return (b == want) == (c.op == equal), nil
}

func (c *clause) matchSlice(v reflect.Value) (bool, error) {
	if kind := v.Type().Elem().Kind(); kind != reflect.String {
		return false, invalidEvaluation("Invalid slice type %q for field %q", kind, c.field)
	}
	if err := c.equality(); err != nil {
		return false, err
	}
	var want []string
	if err := json.Unmarshal([]byte(c.value), &want); err != nil {
		return false, c.unparsable(err)
	}
	same := v.Len() == len(want)
	for i := 0; same && i < len(want); i++ {
		same = v.Index(i).String() == want[i]
	}
	return same == (c.op == equal), nil
}
