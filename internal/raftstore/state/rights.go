package state

import (
	"slices"

	"incusd/api"
)

// Certificates and certificate add tokens give rights in projects, by their names. What follows keeps
// a name from standing for another project than the one that an administrator meant.

// knownProjects returns names, each once and in their order, or refuses one that is no project's:
// whoever makes a project of that name later would let a client in without knowing.
func (tx *transaction) knownProjects(names []string) ([]string, error) {
	out := []string{}
	for _, name := range names {
		if _, ok := projectOf(tx.Txn, name); !ok {
			return nil, api.Errorf(api.NotFound, "Project %q not found", name).
				WithHint("see incus project list for the names")
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// mayChange refuses a client what is in none of its projects, as they and the trust in it are by now:
// the request was judged by what a member knew before.
func (tx *transaction) mayChange(project string) error {
	by := tx.cmd.Requestor
	if by == nil || by.Protocol != "tls" {
		return nil
	}
	c, ok := certificateTable.get(tx.Txn, primary, by.Username)
	switch {
	case !ok:
		return api.Errorf(api.NotAuthorized, "not authorized any more")
	case c.Restricted && !slices.Contains(c.Projects, project):
		return api.Errorf(api.NotAuthorized, "User does not have permission for project %q", project)
	}
	return nil
}

// moveRights gives the rights in a project to the name that it has now; an empty one takes them away.
func (tx *transaction) moveRights(project, now string) {
	for _, c := range certificateTable.list(tx.Txn, primary) {
		if slices.Contains(c.Projects, project) {
			next := *c
			next.Projects = moved(c.Projects, project, now)
			certificateTable.put(tx, &next)
		}
	}
	for _, t := range tokenTable.list(tx.Txn, primary) {
		if t.Client != nil && t.Ended == "" && slices.Contains(t.Client.Projects, project) {
			next := t.Clone()
			grant := *t.Client
			grant.Projects = moved(grant.Projects, project, now)
			next.Client = &grant
			tokenTable.put(tx, next)
		}
	}
}

// moved is a copy of names with now in the place of project, or without it.
func moved(names []string, project, now string) []string {
	out := []string{}
	for _, name := range names {
		switch {
		case name != project:
			out = append(out, name)
		case now != "":
			out = append(out, now)
		}
	}
	return out
}
