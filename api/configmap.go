package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// A ConfigMap is a map of configuration keys. Numbers and booleans in a request
// become strings and null becomes "", as YAML written by hand needs it. It is
// written as {} when nil: clients write into what they decoded.
type ConfigMap map[string]string

// MarshalJSON writes nil as {}.
func (m ConfigMap) MarshalJSON() ([]byte, error) {
	if m == nil {
		return []byte("{}"), nil
	}
	// Unescaped: whether HTML is escaped is up to who encodes the whole.
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(map[string]string(m))
	return buf.Bytes(), err
}

// UnmarshalJSON takes scalars of any type as strings.
func (m *ConfigMap) UnmarshalJSON(data []byte) error {
	var raw map[string]any
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	return m.fill(raw)
}

// UnmarshalYAML takes scalars of any type as strings.
func (m *ConfigMap) UnmarshalYAML(node *yaml.Node) error {
	var raw map[string]any
	if err := node.Decode(&raw); err != nil {
		return err
	}
	return m.fill(raw)
}

func (m *ConfigMap) fill(raw map[string]any) error {
	if raw == nil {
		*m = nil
		return nil
	}
	out := make(ConfigMap, len(raw))
	for k, v := range raw {
		switch v := v.(type) {
		case string:
			out[k] = v
		case bool:
			out[k] = strconv.FormatBool(v)
		case int:
			out[k] = strconv.Itoa(v)
		case int64:
			out[k] = strconv.FormatInt(v, 10)
		case uint64:
			out[k] = strconv.FormatUint(v, 10)
		case float64:
			out[k] = strconv.FormatFloat(v, 'f', -1, 64)
		case nil:
			out[k] = ""
		default:
			return fmt.Errorf("type %T is not supported in %T", v, *m)
		}
	}
	*m = out
	return nil
}
