package filter

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	"incusd/api"
)

// invalidEvaluation is a mistake that shows only against an object. Its text is the
// protocol's, which has no prefix here.
func invalidEvaluation(format string, args ...any) error {
	return api.Errorf(api.BadRequest, format, args...)
}

// lookup finds the value of a dotted field. It is the invalid Value if there is none.
func lookup(v reflect.Value, field string) reflect.Value {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		v = v.Elem() // of nil: the invalid Value
	}
	if field == "" || !v.IsValid() {
		return v
	}
	switch v.Kind() {
	case reflect.Map:
		return lookupKey(v, field)
	case reflect.Struct:
		name, rest, dotted := strings.Cut(field, ".")
		if name == "" || dotted && rest == "" {
			return reflect.Value{}
		}
		return lookup(lookupName(v, name), rest)
	}
	return reflect.Value{}
}

// lookupName finds a struct's field by its JSON or YAML name, also in embedded structs.
func lookupName(v reflect.Value, name string) reflect.Value {
	var embedded []reflect.Value
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		jsonName, yamlName := tagName(f, "json"), tagName(f, "yaml")
		if jsonName == "-" {
			continue
		}
		if f.Anonymous && jsonName == "" && f.Type.Kind() == reflect.Struct {
			embedded = append(embedded, v.Field(i))
			continue
		}
		if name == cmp.Or(jsonName, f.Name) || name == yamlName {
			return v.Field(i)
		}
	}
	for _, e := range embedded {
		if found := lookupName(e, name); found.IsValid() {
			return found
		}
	}
	return reflect.Value{}
}

func tagName(f reflect.StructField, tag string) string {
	name, _, _ := strings.Cut(f.Tag.Get(tag), ",")
	return name
}

// lookupKey finds a map's value. A key may have dots itself, so all that is left of
// the field is tried first; then the field's first part may be the beginning of a
// key's first part; then the field may go on inside the value of its first part. A
// missing key counts as the empty string.
func lookupKey(v reflect.Value, field string) reflect.Value {
	keys := stringKeys(v)
	if value, ok := keys[field]; ok {
		return lookup(value, "")
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if abbreviates(field, key) {
			return lookup(keys[key], "")
		}
	}
	if name, rest, ok := strings.Cut(field, "."); ok {
		if value, ok := keys[name]; ok && rest != "" {
			return lookup(value, rest)
		}
	}
	return reflect.ValueOf("")
}

// stringKeys are a map's values by key; none if its keys are not strings.
func stringKeys(v reflect.Value) map[string]reflect.Value {
	keys := make(map[string]reflect.Value, v.Len())
	if v.Type().Key().Kind() == reflect.String {
		for it := v.MapRange(); it.Next(); {
			keys[it.Key().String()] = it.Value()
		}
	}
	return keys
}

// abbreviates tells whether short is key with a shorter first part.
func abbreviates(short, key string) bool {
	shortFirst, shortRest, shortDotted := strings.Cut(short, ".")
	first, rest, dotted := strings.Cut(key, ".")
	return strings.HasPrefix(first, shortFirst) && shortRest == rest && shortDotted == dotted
}
