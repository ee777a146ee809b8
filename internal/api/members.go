package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"

	"incusd/api"
	"incusd/internal/entities"
	"incusd/internal/membership"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
)

func memberURL(m api.ClusterMember) string { return resource("cluster/members", m.ServerName) }

// membersGet lists the members: GET /1.0/cluster/members. It is answered from stale
// data too.
func (s *Server) membersGet(c *call) (reply, error) {
	view, err := clustered(s.cfg.Store.ReadOrStale(c.Context()))
	if errors.Is(err, api.NotClustered) {
		err = api.Errorf(api.NotClustered, "Server is not clustered") // upstream's words for this one call
	}
	if err != nil {
		return reply{}, err
	}
	members := membership.Members(view, s.cfg.Now())
	for i := range members {
		c.caller.hide(&members[i].Config)
	}
	list, err := listed(c, members, memberURL)
	return ok(view, list), err
}

// membersPost issues a join token: POST /1.0/cluster/members. The token is an
// operation that runs until somebody joins with it.
func (s *Server) membersPost(c *call) (reply, error) {
	req, err := decode[api.ClusterMembersPost](c)
	if err != nil {
		return reply{}, err
	}
	if err := api.ValidateMemberName(req.ServerName); err != nil {
		return reply{}, err
	}
	if _, err := clustered(s.cfg.Store.Local(), nil); err != nil {
		return reply{}, err
	}
	issue := s.cfg.Tokens.Issue
	if req.Replace {
		issue = s.cfg.Tokens.IssueReplacement
	}
	token, err := issue(c.Context(), req.ServerName, c.caller.requestor())
	if err != nil {
		return reply{}, err
	}
	return accepted(tokens.Operation(token, s.tokenLocation(token), true)), nil
}

// tokenLocation names the member that issued a token.
func (s *Server) tokenLocation(t *state.Token) string {
	return tokens.Location(s.cfg.Store.Local(), t)
}

// findMember returns the member that the path names, from a view that read gives.
func (s *Server) findMember(c *call, read func(context.Context) (*raftstore.View, error)) (*raftstore.View, *state.Member, error) {
	view, err := clustered(read(c.Context()))
	if err != nil {
		return nil, nil, err
	}
	m, ok := view.MemberByName(c.name("name"))
	if !ok {
		return nil, nil, unlessStale(view, api.Errorf(api.MemberNotFound, "Cluster member not found"))
	}
	return view, m, nil
}

// memberGet shows one member: GET /1.0/cluster/members/NAME. It is answered from
// stale data too.
func (s *Server) memberGet(c *call) (reply, error) {
	view, m, err := s.findMember(c, s.cfg.Store.ReadOrStale)
	if err != nil {
		return reply{}, err
	}
	shown := membership.Member(view, m, s.cfg.Now())
	rep := ok(view, &shown)
	if !c.caller.hide(&shown.Config) {
		rep.etag = memberTag(view, m)
	}
	return rep, nil
}

// memberTag is the ETag of a member. Whether it votes is in it, since that is among the roles which
// clients send back: who read them before a change of it is told to read again, and not that they ask
// for what cannot be granted.
func memberTag(view *raftstore.View, m *state.Member) string {
	return ETag([]any{m.WritableHash(), view.IsVoter(m.ID)})
}

// memberPut replaces the writable part of a member: PUT /1.0/cluster/members/NAME.
func (s *Server) memberPut(c *call) (reply, error) {
	put, err := decode[api.ClusterMemberPut](c)
	if err != nil {
		return reply{}, err
	}
	view, m, err := s.findMember(c, s.read)
	if err != nil {
		return reply{}, err
	}
	if err := c.ifMatchTag(memberTag(view, m)); err != nil {
		return reply{}, err
	}
	expect := ""
	if c.givenETag() != "" {
		expect = m.WritableHash() // of what the ETag was found to be right about
	}
	return empty, s.cfg.Members.UpdateMember(c.Context(), m.ID, put, expect, c.caller.requestor())
}

// patchTries bounds how often a PATCH begins anew because the member was changed
// meanwhile.
const patchTries = 10

// memberPatch changes what the body has of the writable part of a member; keys of the
// configuration are merged: PATCH /1.0/cluster/members/NAME.
func (s *Server) memberPatch(c *call) (reply, error) {
	body, err := decode[json.RawMessage](c)
	if err != nil {
		return reply{}, err
	}
	for try := 1; ; try++ {
		err := s.patchMember(c, body)
		if c.givenETag() != "" || !errors.Is(err, api.PreconditionFail) || try == patchTries {
			return empty, err
		}
	}
}

// patchMember writes the body over the member as it is now, and nothing if the member
// changes meanwhile.
func (s *Server) patchMember(c *call, body []byte) error {
	view, m, err := s.findMember(c, s.read)
	if err != nil {
		return err
	}
	if err := c.ifMatchTag(memberTag(view, m)); err != nil {
		return err
	}
	put := membership.Member(view, m, s.cfg.Now()).ClusterMemberPut
	if err := writeOver(&put, body); err != nil {
		return err
	}
	return s.cfg.Members.UpdateMember(c.Context(), m.ID, put, m.WritableHash(), c.caller.requestor())
}

// writeOver changes put to what body says. What is null or left out stays as it is.
func writeOver(put *api.ClusterMemberPut, body []byte) error {
	before := *put
	if err := unmarshal(body, put); err != nil {
		return err
	}
	merged := maps.Clone(before.Config)
	maps.Copy(merged, put.Config)
	put.Config = merged
	if put.Roles == nil {
		put.Roles = before.Roles
	}
	if put.Groups == nil {
		put.Groups = before.Groups
	}
	return nil
}

// memberPost renames a member: POST /1.0/cluster/members/NAME. The cluster decides, so that the
// member itself need not be there.
func (s *Server) memberPost(c *call) (reply, error) {
	post, err := decode[api.ClusterMemberPost](c)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Members.RenameMember(c.Context(), c.name("name"), post.ServerName, c.caller.requestor())
}

// memberDelete removes a member and answers when it is gone: DELETE /1.0/cluster/members/NAME.
// With pending=1 it ends a join under that name that has not been finished.
func (s *Server) memberDelete(c *call) (reply, error) {
	force, err := boolean(c, "force")
	if err != nil {
		return reply{}, err
	}
	pending, err := boolean(c, "pending")
	if err != nil {
		return reply{}, err
	}
	if pending {
		return empty, s.cfg.Members.AbortJoin(c.Context(), c.name("name"))
	}
	rotate, err := boolean(c, "rotate-key")
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Members.RemoveMember(c.Context(), c.name("name"), force, rotate, c.caller.requestor())
}

// memberStateGet shows how a member's machine is: GET /1.0/cluster/members/NAME/state.
// The member itself answers.
func (s *Server) memberStateGet(c *call) (reply, error) {
	view, m, err := s.findMember(c, s.cfg.Store.ReadOrStale)
	if err != nil {
		return reply{}, err
	}
	other, err := s.other(c, view, m.Name)
	if err != nil {
		return reply{}, err
	}
	if other != nil {
		return s.forward(c, other), nil
	}
	measured, err := memberState()
	if err != nil {
		return reply{}, err
	}
	for _, pool := range entities.Pools(view) {
		if space, err := s.cfg.Entities.PoolResources(c.Context(), pool.Name); err == nil { // else it is not usable here
			measured.StoragePools[pool.Name] = *space
		}
	}
	return reply{metadata: measured}, nil
}
