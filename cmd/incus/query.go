package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
)

func (a *app) queryCommand() *cobra.Command {
	var q query
	cmd := &cobra.Command{
		Use:   "query [<remote>:]<path>",
		Short: "Send a request to the REST API and print the answer",
		Example: "  incus query /1.0/cluster/members?recursion=1\n" +
			"  incus query -X PATCH -d '{\"config\": {\"user.site\": \"Berlin\"}}' /1.0",
		Args: argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			remote, path := a.defaultRemote(), args[0]
			if !strings.HasPrefix(path, "/") {
				var err error
				if remote, path, err = a.split(path); err != nil {
					return err
				}
			}
			if !strings.HasPrefix(path, "/") {
				return api.Errorf(api.BadRequest, "Query path must start with /").WithHint("for example: incus query /1.0")
			}
			c, err := a.connectTo(remote)
			if err != nil {
				return err
			}
			return q.run(cmd.Context(), a, c, path)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&q.method, "request", "X", http.MethodGet, "The HTTP `METHOD`")
	flags.StringVarP(&q.data, "data", "d", "", "The `JSON` to send; - reads it from stdin")
	flags.StringVar(&q.dataFile, "data-file", "", "The `FILE` to send; - is stdin")
	flags.BoolVar(&q.wait, "wait", false, "Wait for the operation to end")
	flags.BoolVar(&q.raw, "raw", false, "Print the whole answer, not only its metadata")
	cmd.MarkFlagsMutuallyExclusive("data", "data-file")
	return cmd
}

// query is one "incus query".
type query struct {
	method, data, dataFile string
	wait, raw              bool
}

func (q *query) run(ctx context.Context, a *app, c *client.Client, path string) error {
	body, err := q.body(a.stdin)
	if err != nil {
		return err
	}
	reply, err := c.Query(ctx, strings.ToUpper(q.method), path, body, "")
	if err != nil {
		return err
	}
	if q.wait && reply.Type == api.AsyncResponse {
		if err := waitFor(ctx, a, c, reply); err != nil {
			return err
		}
	}
	switch {
	case reply.Text != nil:
		_, err := a.stdout.Write(reply.Text)
		return err
	case q.raw:
		return printRaw(a.stdout, reply.Response)
	case len(reply.Metadata) == 0, string(reply.Metadata) == "{}", string(reply.Metadata) == "null":
		return nil
	default:
		return printSorted(a.stdout, reply.Metadata)
	}
}

// body is what to send: nil, or checked JSON.
func (q *query) body(stdin io.Reader) (any, error) {
	data, err := []byte(q.data), error(nil)
	switch {
	case q.data == "-", q.dataFile == "-":
		data, err = io.ReadAll(stdin)
	case q.dataFile != "":
		data, err = os.ReadFile(q.dataFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read request body: %w", err)
	}
	if len(data) == 0 {
		return nil, nil
	}
	if !json.Valid(data) {
		return nil, api.Errorf(api.BadRequest, "The request body is not valid JSON")
	}
	return json.RawMessage(data), nil
}

// waitFor waits for the operation that reply announces, and makes reply the answer
// that tells its end.
func waitFor(ctx context.Context, a *app, c *client.Client, reply *client.Reply) error {
	op, err := reply.Operation()
	if err != nil {
		return err
	}
	if op, err = a.await(ctx, c, op, op.Description); err != nil {
		return err
	}
	metadata, err := json.Marshal(op)
	if err != nil {
		return err
	}
	reply.Response = api.Response{
		Type: api.SyncResponse, Status: api.Success.String(), StatusCode: int(api.Success), Metadata: metadata,
	}
	return nil
}

// printSorted prints JSON with sorted keys, as "incus query" always did. The empty
// line at the end is part of that.
func printSorted(w io.Writer, data json.RawMessage) error {
	var value any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // a number is printed as it came
	if err := d.Decode(&value); err != nil {
		return err
	}
	return printRaw(w, value)
}

func printRaw(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	if err := e.Encode(value); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}
