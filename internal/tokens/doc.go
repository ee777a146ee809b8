// Package tokens issues and redeems the cluster's join tokens.
//
// A token admits one named member, once, before it expires. Tokens are kept in
// the replicated store, so any member can issue or honour one, and none is lost
// with the member that issued it. Two joiners with one token never both succeed;
// one joiner that retries always does.
//
// The secret is the token: who holds it may claim it, and only its holder is told
// what became of it. Commands after the first carry its hash alone.
//
// The package knows nothing of HTTP, nor of how a member is brought up.
package tokens
