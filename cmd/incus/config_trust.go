package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

func (a *app) configTrustCommand() *cobra.Command {
	return parent("trust", "Manage the clients that the server trusts",
		a.trustAddCommand(), a.trustAddCertificateCommand(), a.trustListCommand(), a.trustListTokensCommand(),
		a.trustRemoveCommand(), a.trustRevokeTokenCommand(), a.trustEditCommand(), a.trustShowCommand())
}

// rights are what a new client may do.
type rights struct {
	restricted bool
	projects   string
}

func (r *rights) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&r.restricted, "restricted", false, "Let the client use some projects only")
	cmd.Flags().StringVar(&r.projects, "projects", "", "The `PROJECTS` that a restricted client may use, separated by commas")
	mustComplete(cmd, "projects", cobra.NoFileCompletions)
}

// list is the projects as a request has them.
func (r *rights) list() []string {
	return strings.FieldsFunc(r.projects, func(c rune) bool { return c == ',' || c == ' ' })
}

// check refuses rights that say less than whoever typed them meant.
func (r *rights) check() error {
	if r.projects != "" && !r.restricted {
		return api.Errorf(api.BadRequest, "--projects has no effect without --restricted: the client could do everything").
			WithHint("add --restricted, or leave --projects out")
	}
	return nil
}

func (a *app) trustAddCommand() *cobra.Command {
	var may rights
	cmd := &cobra.Command{
		Use:   "add [<remote>:]<name>",
		Short: "Issue a token with which a client lets itself in",
		Long: "Issue a token with which a client lets itself in.\n\nThere it is given to \"incus remote add\". It works once; after core.remote_token_expiry, if\n" +
			"that is set, it does not work any longer.",
		Example: "  incus config trust add laptop\n  incus config trust add build --restricted --projects shop,web",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			if name == "" {
				return api.Errorf(api.NameInvalid, "Missing client name").WithHint("usage: %s", cmd.UseLine())
			}
			if err := may.check(); err != nil {
				return err
			}
			token, err := c.CreateAddToken(cmd.Context(), api.CertificatesPost{
				Name: name, Type: api.CertificateClient, Restricted: may.restricted, Projects: may.list(),
			})
			if err != nil {
				return err
			}
			a.say("Client %s certificate add token:", name)
			_, err = fmt.Fprintln(a.stdout, token.String())
			return err
		},
	}
	may.add(cmd)
	return cmd
}

func (a *app) trustAddCertificateCommand() *cobra.Command {
	var may rights
	var name, kind, description string
	cmd := &cobra.Command{
		Use:     "add-certificate [<remote>:] <file>",
		Short:   "Trust a client's certificate",
		Long:    "Trust a client's certificate: the file that \"incus remote get-client-certificate\" prints there.\n- is stdin.",
		Example: "  incus config trust add-certificate laptop.crt --name laptop",
		Args:    argCount(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, rest, err := a.leadingRemote(args)
			if err != nil {
				return err
			}
			if err := argCount(1, 1)(cmd, rest); err != nil {
				return err
			}
			if kind != api.CertificateClient && kind != api.CertificateMetrics {
				return api.Errorf(api.BadRequest, "Unknown certificate type %q", kind).WithHint("use client or metrics")
			}
			if err := may.check(); err != nil {
				return err
			}
			cert, err := a.readCertificate(rest[0])
			if err != nil {
				return err
			}
			return c.CreateCertificate(cmd.Context(), api.CertificatesPost{
				Name: cmp.Or(name, filepath.Base(rest[0])), Type: kind, Restricted: may.restricted, Projects: may.list(),
				Description: description, Certificate: base64.StdEncoding.EncodeToString(cert.Raw),
			})
		},
	}
	may.add(cmd)
	cmd.Flags().StringVar(&name, "name", "", "Call it `NAME`, and not as the file is called")
	cmd.Flags().StringVarP(&kind, "type", "t", api.CertificateClient, "The `TYPE` of the certificate (client or metrics)")
	cmd.Flags().StringVar(&description, "description", "", "Describe it as `TEXT`")
	mustComplete(cmd, "type", cobra.FixedCompletions([]string{api.CertificateClient, api.CertificateMetrics}, noFiles))
	return cmd
}

// readCertificate reads a PEM file; "-" is stdin.
func (a *app) readCertificate(path string) (*x509.Certificate, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(a.stdin)
	} else {
		data, err = os.ReadFile(path)
	}
	switch {
	case os.IsNotExist(err):
		return nil, api.Errorf(api.NotFound, "Provided certificate path doesn't exist: %s", path).
			WithHint("on the client: incus remote get-client-certificate > %s", path)
	case err != nil:
		return nil, err
	}
	cert, err := parseCertificate(string(data))
	if err != nil {
		return nil, api.Errorf(api.CertInvalid, "%s: %v", path, err).WithHint("give a PEM certificate, as incus remote get-client-certificate prints it")
	}
	return cert, nil
}

func parseCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("Invalid certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

// A trustedCertificate is one line of "incus config trust list".
type trustedCertificate struct {
	api.Certificate
	x509 *x509.Certificate
}

func (a *app) certificateColumns(table.Format) []column[trustedCertificate] {
	return []column[trustedCertificate]{
		{'n', "NAME", func(c trustedCertificate) string { return c.Name }},
		{'t', "TYPE", func(c trustedCertificate) string { return c.Type }},
		{'c', "COMMON NAME", func(c trustedCertificate) string { return c.x509.Subject.CommonName }},
		{'f', "FINGERPRINT", func(c trustedCertificate) string { return c.Fingerprint[:min(12, len(c.Fingerprint))] }},
		{'F', "FULL FINGERPRINT", func(c trustedCertificate) string { return c.Fingerprint }},
		{'d', "DESCRIPTION", func(c trustedCertificate) string { return c.Description }},
		{'i', "ISSUE DATE", func(c trustedCertificate) string { return a.date(c.x509.NotBefore) }},
		{'e', "EXPIRY DATE", func(c trustedCertificate) string { return a.date(c.x509.NotAfter) }},
		{'r', "RESTRICTED", func(c trustedCertificate) string {
			if c.Restricted {
				return "yes"
			}
			return "no"
		}},
		{'p', "PROJECTS", func(c trustedCertificate) string { return strings.Join(slices.Sorted(slices.Values(c.Projects)), "\n") }},
	}
}

func (a *app) trustListCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:     "list [<remote>:] [<filter>...]",
		Aliases: []string{"ls"},
		Short:   "List the trusted certificates",
		Long: "List the trusted certificates: those of clients, and those of the cluster's members.\n\n" +
			"A filter is the start of a name, or key=value.\n\n" + columnHelp(a.certificateColumns(table.Format{})),
		Example: "  incus config trust list\n  incus config trust list type=client -c nFr",
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := newListing(flags, a.certificateColumns)
			if err != nil {
				return err
			}
			c, filters, err := a.leadingRemote(args)
			if err != nil {
				return err
			}
			found, err := c.Certificates(cmd.Context(), certificateFilter(filters))
			if err != nil {
				return err
			}
			var rows []trustedCertificate
			for _, certificate := range found {
				cert, err := parseCertificate(certificate.Certificate)
				if err != nil {
					return fmt.Errorf("certificate %s: %w", certificate.Fingerprint, err)
				}
				rows = append(rows, trustedCertificate{certificate, cert})
			}
			return list.printAs(a, rows, found)
		},
	}
	flags.add(cmd, "ntdfe")
	return cmd
}

// certificateFilter writes the filters of a command line in the language of the API.
func certificateFilter(args []string) string {
	var clauses []string
	for _, arg := range args {
		key, value, isPair := strings.Cut(arg, "=")
		if !isPair {
			key, value = "name", fmt.Sprintf("(^%s$|^%s.*)", arg, arg)
		}
		if strings.ContainsAny(value, " \t") || value == "" {
			value = `"` + value + `"`
		}
		clauses = append(clauses, key+" eq "+value)
	}
	return strings.Join(clauses, " and ")
}

func (a *app) addTokenColumns(f table.Format) []column[client.AddToken] {
	return []column[client.AddToken]{
		{'n', "NAME", func(t client.AddToken) string { return t.ClientName }},
		{'t', "TOKEN", func(t client.AddToken) string { return t.String() }},
		{'E', "EXPIRES AT", func(t client.AddToken) string { return cmp.Or(a.date(t.ExpiresAt), " ") }},
	}
}

func (a *app) trustListTokensCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:     "list-tokens [<remote>:]",
		Short:   "List the tokens that can still be used",
		Long:    "List the tokens that can still be used to add a client.\n\n" + columnHelp(a.addTokenColumns(table.Format{})),
		Example: "  incus config trust list-tokens",
		Args:    argCount(0, 1),
		RunE: listAll(a, &flags, a.addTokenColumns, func(ctx context.Context, c *client.Client) ([]client.AddToken, error) {
			return c.AddTokens(ctx)
		}),
	}
	flags.add(cmd, "ntE")
	return cmd
}

func (a *app) trustRevokeTokenCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "revoke-token [<remote>:]<name>",
		Short:   "Revoke the token for the client called <name>",
		Example: "  incus config trust revoke-token laptop",
		Args:    argCount(1, 1),
		ValidArgsFunction: a.complete(0, func(ctx context.Context, c *client.Client) ([]string, error) {
			tokens, err := c.AddTokens(ctx)
			return namesOf(tokens, func(t client.AddToken) string { return t.ClientName }), err
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			tokens, err := c.AddTokens(cmd.Context())
			if err != nil {
				return err
			}
			for _, token := range tokens {
				if token.ClientName != name {
					continue
				}
				if err := c.CancelOperation(cmd.Context(), token.Operation); err != nil {
					return err
				}
				a.say("Certificate add token for %s deleted", name)
				return nil
			}
			return a.notThere("No certificate add token for member %s on remote: %s", name, a.used.name)
		},
	}
}

// completeFingerprints offers the fingerprints of trusted certificates.
func (a *app) completeFingerprints() cobra.CompletionFunc {
	return a.complete(0, func(ctx context.Context, c *client.Client) ([]string, error) {
		found, err := c.Certificates(ctx, "")
		return namesOf(found, func(c api.Certificate) string { return c.Fingerprint }), err
	})
}

// certificate connects to the server of "[remote:]fingerprint" and returns the fingerprint.
func (a *app) certificate(cmd *cobra.Command, arg string) (*client.Client, string, error) {
	c, fingerprint, err := a.server(arg)
	if err == nil && fingerprint == "" {
		err = api.Errorf(api.BadRequest, "Missing fingerprint").WithHint("usage: %s; see incus config trust list", cmd.UseLine())
	}
	return c, fingerprint, err
}

func (a *app) trustRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "remove [<remote>:]<fingerprint>",
		Aliases: []string{"delete", "rm"},
		Short:   "Trust a client no longer",
		Long: "Trust a client no longer.\n\nEvery member refuses it as soon as it has the change, on open connections, too. The start\n" +
			"of a fingerprint is enough, if there is only one such.",
		Example:           "  incus config trust remove 3fe578c8392c",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeFingerprints(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, fingerprint, err := a.certificate(cmd, args[0])
			if err != nil {
				return err
			}
			return c.DeleteCertificate(cmd.Context(), fingerprint)
		},
	}
}

func (a *app) trustShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show [<remote>:]<fingerprint>",
		Short:             "Show a trusted certificate as YAML",
		Example:           "  incus config trust show 3fe578c8392c",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeFingerprints(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, fingerprint, err := a.certificate(cmd, args[0])
			if err != nil {
				return err
			}
			certificate, _, err := c.Certificate(cmd.Context(), fingerprint)
			if err != nil {
				return err
			}
			return table.WriteYAML(a.stdout, certificate)
		},
	}
}

const trustHelp = `### This is an entry of the trust store, as YAML.
### Lines that begin with # are ignored.
###
### The type cannot be changed. A sample:
###   name: laptop
###   type: client
###   restricted: true
###   projects: [shop]
###   description: Jane's
`

func (a *app) trustEditCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "edit [<remote>:]<fingerprint>",
		Short:             "Edit a trusted certificate as YAML",
		Long:              "Edit a trusted certificate as YAML.\n\nWhen stdin is no terminal, the YAML is read from there.",
		Example:           "  incus config trust edit 3fe578c8392c < laptop.yaml",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeFingerprints(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, fingerprint, err := a.certificate(cmd, args[0])
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			certificate, etag, err := c.Certificate(ctx, fingerprint)
			if err != nil {
				return err
			}
			if !a.stdinTerminal {
				// What "show" printed is taken, too: its fingerprint is known, and ignored.
				return editObject(ctx, a, *certificate, "", func(changed api.Certificate) error {
					return c.UpdateCertificate(ctx, certificate.Fingerprint, changed.Put(), "")
				})
			}
			return editObject(ctx, a, certificate.Put(), trustHelp, func(put api.CertificatePut) error {
				return c.UpdateCertificate(ctx, certificate.Fingerprint, put, etag)
			})
		},
	}
}
