package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"incusd/api"
	"incusd/internal/filter"
)

// A call is one request: by whom, and what its path names.
type call struct {
	*http.Request
	caller caller
	vars   map[string]string // as they stand in the path, percent-encoded
	query  url.Values
}

// param is a query parameter. (FormValue would take a body sent by curl -d for a form.)
func (c *call) param(key string) string { return c.query.Get(key) }

// name is a decoded part of the path.
func (c *call) name(part string) string {
	value, err := url.PathUnescape(c.vars[part])
	if err != nil {
		return c.vars[part] // names nothing, then
	}
	return value
}

// recursive tells whether objects are wanted rather than their URLs.
func (c *call) recursive() bool {
	depth, err := strconv.Atoi(c.param("recursion"))
	return err == nil && depth != 0
}

// decode reads the request's body. Keys that are not known are ignored, as newer
// clients send them. An error names the place in the body.
func decode[T any](c *call) (T, error) {
	var value T
	data, err := io.ReadAll(c.Body)
	if err != nil {
		return value, api.Errorf(api.BadRequest, "Request body: %v", err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return value, api.Errorf(api.BadRequest, "Request body is empty; a JSON object is needed")
	}
	err = unmarshal(data, &value)
	return value, err
}

// unmarshal reads JSON over what value is already.
func unmarshal(data []byte, value any) error {
	if err := json.Unmarshal(data, value); err != nil {
		return api.Errorf(api.BadRequest, "Invalid JSON in request body%s: %v", position(data, err), err)
	}
	return nil
}

// position says where in data a JSON error is, if the error tells.
func position(data []byte, err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var offset int64
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	default:
		return ""
	}
	before := data[:min(int(offset), len(data))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - (bytes.LastIndexByte(before, '\n') + 1)
	return fmt.Sprintf(" at line %d, column %d", line, max(column, 1))
}

// givenETag is the value of If-Match, whose quotes are optional; "" if there is none.
func (c *call) givenETag() string { return strings.Trim(c.Header.Get("If-Match"), `"`) }

// ifMatch refuses a change whose author saw another value than the current one.
func (c *call) ifMatch(current any) error {
	if c.givenETag() == "" {
		return nil
	}
	return c.ifMatchTag(ETag(current))
}

// ifMatchTag is ifMatch for a value whose ETag is known.
func (c *call) ifMatchTag(current string) error {
	if given := c.givenETag(); given != "" && given != current {
		return api.Errorf(api.PreconditionFail, "ETag doesn't match: %s vs %s", current, given)
	}
	return nil
}

// filtered keeps the items that match the request's filter= expression. None, or an
// empty one, keeps all.
func filtered[T any](c *call, items []T) ([]T, error) {
	expression := c.param("filter")
	if expression == "" {
		return items, nil
	}
	f, err := filter.Parse(expression)
	if err != nil {
		return nil, err
	}
	kept := make([]T, 0, len(items))
	for _, item := range items {
		match, err := f.Match(item)
		if err != nil {
			return nil, err
		}
		if match {
			kept = append(kept, item)
		}
	}
	return kept, nil
}

// listed answers with objects, or with their URLs if the request is not recursive.
func listed[T any](c *call, items []T, urlOf func(T) string) (any, error) {
	items, err := filtered(c, items)
	if err != nil {
		return nil, err
	}
	if c.recursive() {
		if items == nil {
			items = []T{}
		}
		return items, nil
	}
	urls := make([]string, 0, len(items))
	for _, item := range items {
		urls = append(urls, urlOf(item))
	}
	return urls, nil
}

// A projectScope is which projects' objects a request is about.
type projectScope struct {
	name string // of the one project; "" when all is true
	all  bool
}

// includes tells whether an object of a project is in the scope.
func (p projectScope) includes(project string) bool { return p.all || p.name == project }

// projects reads project= and all-projects=, and refuses a project that a restricted client may not
// use, and to ask for all at once.
func (c *call) projects() (projectScope, error) {
	all, err := boolean(c, "all-projects")
	if err != nil {
		return projectScope{}, err
	}
	name := c.param("project")
	if all {
		if name != "" {
			return projectScope{}, api.Errorf(api.BadRequest, "Cannot specify a project when requesting all projects")
		}
		if c.caller.kind == RestrictedClient {
			return projectScope{}, api.Errorf(api.NotAuthorized, "Certificate is restricted").
				WithHint("ask for its projects one by one, by project=")
		}
		return projectScope{all: true}, nil
	}
	if name == "" {
		name = defaultName
	}
	return projectScope{name: name}, c.caller.mayUse(name)
}

// boolean reads a query parameter that is true, false, 1, 0, or left out.
func boolean(c *call, key string) (bool, error) {
	text := c.param(key)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, api.Errorf(api.BadRequest, "Invalid value %q for parameter %q: true or false is needed", text, key)
	}
	return value, nil
}

// integer reads a query parameter that is a whole number; missing if it is left out.
func integer(c *call, key string, missing int) (int, error) {
	text := c.param(key)
	if text == "" {
		return missing, nil
	}
	value, err := strconv.Atoi(text)
	if err != nil {
		return 0, api.Errorf(api.BadRequest, "Invalid value %q for parameter %q: a whole number is needed", text, key)
	}
	return value, nil
}

// resource is the URL of an object.
func resource(collection, name string) string {
	return "/" + api.APIVersion + "/" + collection + "/" + url.PathEscape(name)
}
