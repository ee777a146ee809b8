// Package filter parses and evaluates the filter= expressions of the protocol:
//
//	[not] FIELD OP VALUE [and|or [not] FIELD OP VALUE]...
//
// Clauses are joined from left to right, without precedence and without parentheses.
// Operators are eq, ne, gt, lt, ge and le. Fields have their JSON or YAML names, with
// dots into objects and maps: config.user.foo.
//
// A string is compared with a case-insensitive regular expression, which must match
// all of it unless it says otherwise by ^ or $; a value with commas is a list of
// alternatives instead. An expression is bounded in length, and its regular
// expressions in size; they take linear time, so that nobody's filter stops a server.
package filter
