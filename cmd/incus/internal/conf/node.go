package conf

import "go.yaml.in/yaml/v3"

func word(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

// isEmpty tells whether there is nothing at a place of the file.
func isEmpty(node *yaml.Node) bool {
	return node == nil || node.IsZero() || node.Kind == yaml.ScalarNode && node.Tag == "!!null"
}

// valueOf is the value of a key of a mapping; nil if it has none.
func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// mappingOf is the mapping that a key has as its value, made if there is none.
func mappingOf(parent *yaml.Node, key string) *yaml.Node {
	if value := valueOf(parent, key); value != nil && value.Kind == yaml.MappingNode {
		return value
	}
	put(parent, key, &yaml.Node{Kind: yaml.MappingNode})
	return valueOf(parent, key)
}

// put sets a key of a mapping. A comment beside the old value stays.
func put(mapping *yaml.Node, key string, value *yaml.Node) {
	old := valueOf(mapping, key)
	switch {
	case old == nil:
		mapping.Content = append(mapping.Content, word(key), value)
	case old.Kind == yaml.ScalarNode && value.Kind == yaml.ScalarNode && old.Value == value.Value && !isEmpty(old):
	default:
		value.HeadComment, value.LineComment, value.FootComment = old.HeadComment, old.LineComment, old.FootComment
		*old = *value
	}
}

// remove takes a key out of a mapping.
func remove(mapping *yaml.Node, key string) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			mapping.Content = append(mapping.Content[:i:i], mapping.Content[i+2:]...)
			return
		}
	}
}

// rename gives a key of a mapping another name, in its place.
func rename(mapping *yaml.Node, key, to string) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			mapping.Content[i].Value = to
		}
	}
}
