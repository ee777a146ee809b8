package state

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"incusd/api"
)

func TestConfigSet(t *testing.T) {
	w := newCluster(t)
	steps := []struct {
		name  string
		set   ConfigSet
		want  map[string]string
		event bool
	}{
		{"set", ConfigSet{Set: map[string]string{"a": "1", "b": "2"}}, map[string]string{"a": "1", "b": "2"}, true},
		{"the same again", ConfigSet{Set: map[string]string{"a": "1"}}, map[string]string{"a": "1", "b": "2"}, false},
		{"merge", ConfigSet{Set: map[string]string{"b": "3", "c": "4"}}, map[string]string{"a": "1", "b": "3", "c": "4"}, true},
		{"unset", ConfigSet{Set: map[string]string{"a": ""}}, map[string]string{"b": "3", "c": "4"}, true},
		{"unset nothing", ConfigSet{Set: map[string]string{"a": ""}}, map[string]string{"b": "3", "c": "4"}, false},
		{"replace", ConfigSet{Set: map[string]string{"c": "4", "d": "5"}, Replace: true}, map[string]string{"c": "4", "d": "5"}, true},
		{"replace by the same", ConfigSet{Set: map[string]string{"c": "4", "d": "5"}, Replace: true}, map[string]string{"c": "4", "d": "5"}, false},
		{"replace by nothing", ConfigSet{Replace: true}, map[string]string{}, true},
	}
	for _, s := range steps {
		v := w.s.View()
		w.must(KindConfigSet, s.set)
		if got := w.s.View().Config(); !maps.Equal(got, s.want) {
			t.Errorf("%s: %v, want %v", s.name, got, s.want)
		}
		if s.event {
			w.happened("config-updated /1.0")
		} else {
			w.happened()
		}
		if closed(v.Watch()) != s.event {
			t.Errorf("%s: watchers woken: %v", s.name, !s.event)
		}
		if same := v.ConfigHash() == w.s.View().ConfigHash(); same == s.event {
			t.Errorf("%s: hash is the same: %v", s.name, same)
		}
	}
}

func TestConfigSetExpects(t *testing.T) {
	w := newCluster(t)
	hash := w.s.View().ConfigHash()
	w.must(KindConfigSet, ConfigSet{Set: map[string]string{"a": "1"}, Expect: hash})
	w.says(api.PreconditionFail, "ETag doesn't match", KindConfigSet, ConfigSet{Set: map[string]string{"a": "2"}, Expect: hash})
	if got := w.s.View().Config()["a"]; got != "1" {
		t.Errorf("a=%s", got)
	}
}

func TestConfigHashTellsKeyFromValue(t *testing.T) {
	a, b := newCluster(t), newCluster(t)
	a.must(KindConfigSet, ConfigSet{Set: map[string]string{"ab": "c"}})
	b.must(KindConfigSet, ConfigSet{Set: map[string]string{"a": "bc"}})
	if a.s.View().ConfigHash() == b.s.View().ConfigHash() {
		t.Error("two configurations have one hash")
	}
}

func TestConfigSetLimits(t *testing.T) {
	w := newCluster(t)
	many := map[string]string{}
	for i := range MaxConfigKeys {
		many[fmt.Sprintf("user.%d", i)] = "x"
	}
	w.must(KindConfigSet, ConfigSet{Set: many})
	w.refused(api.TooLarge, KindConfigSet, ConfigSet{Set: map[string]string{"user.more": "x"}})
	w.must(KindConfigSet, ConfigSet{Set: map[string]string{"user.more": "x", "user.0": ""}})
	many["user.x"] = "x"
	w.refused(api.TooLarge, KindConfigSet, ConfigSet{Set: many})
	w.refused(api.TooLarge, KindConfigSet, ConfigSet{Set: map[string]string{"user.0": strings.Repeat("x", MaxConfigValue+1)}})
	w.must(KindConfigSet, ConfigSet{Set: map[string]string{"user.1": strings.Repeat("x", MaxConfigValue)}})
	w.refused(api.ConfigInvalid, KindConfigSet, ConfigSet{Set: map[string]string{"": "x"}})
	w.refused(api.ConfigInvalid, KindConfigSet, ConfigSet{Set: map[string]string{"a\nb": "x"}})
	w.refused(api.ConfigInvalid, KindConfigSet, ConfigSet{Set: map[string]string{strings.Repeat("k", 300): "x"}})
	if n := len(w.s.View().Config()); n != MaxConfigKeys {
		t.Errorf("%d keys", n)
	}
}

func TestConfigIsAFreshCopy(t *testing.T) {
	w := newCluster(t)
	w.must(KindConfigSet, ConfigSet{Set: map[string]string{"a": "1"}})
	w.s.View().Config()["a"] = "2"
	if got := w.s.View().Config()["a"]; got != "1" {
		t.Errorf("a=%s", got)
	}
}
