package membership

import (
	"fmt"
	"strings"

	"incusd/api"
)

// problems are all reasons why a cluster refuses a server.
type problems []api.Error

// joinProblems makes one error of all problems; a single one keeps its own reason.
func joinProblems(list []api.Error) error {
	switch len(list) {
	case 0:
		return nil
	case 1:
		return &list[0]
	}
	return problems(list)
}

func (p problems) Error() string {
	texts := make([]string, len(p))
	for i, problem := range p {
		texts[i] = fmt.Sprintf("%s (%s)", problem.Message, problem.Reason)
	}
	return fmt.Sprintf("The cluster refuses this server for %d reasons: %s", len(p), strings.Join(texts, "; "))
}

// Unwrap gives the whole one reason.
func (p problems) Unwrap() error { return api.JoinRefused }

// Problems lists them for whoever shows each by itself.
func (p problems) Problems() []api.Error { return p }
