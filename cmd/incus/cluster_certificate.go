package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
)

func (a *app) clusterUpdateCertificateCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "update-certificate [<remote>:] <certificate> <key>",
		Aliases: []string{"update-cert"},
		Short:   "Replace the certificate that the cluster shows",
		Long: "Replace the certificate that the cluster shows, on all members at once.\n\nBoth files are PEM. Members that are away show it when they are back. Remotes and join\n" +
			"tokens that know the present certificate stay good with this command line: the present\n" +
			"key endorses the new certificate. Other clients have to accept the new fingerprint.",
		Example: "  incus cluster update-certificate cluster.crt cluster.key",
		Args:    argCount(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			remote := ""
			if len(args) == 3 {
				remote, args = args[0], args[1:]
			}
			certificate, key, err := readPair(args[0], args[1])
			if err != nil {
				return err
			}
			c, err := a.onlyServer(remote)
			if err != nil {
				return err
			}
			if err := requireCluster(cmd.Context(), c); err != nil {
				return err
			}
			if err := c.UpdateClusterCertificate(cmd.Context(), certificate, key); err != nil {
				return err
			}
			a.keepCertificate(certificate)
			a.say("Successfully updated cluster certificates")
			return nil
		},
	}
}

// readPair reads the files of a certificate and its key.
func readPair(certFile, keyFile string) (certificate, key string, err error) {
	read := func(what, name string) string {
		info, statErr := os.Stat(name)
		switch {
		case err != nil:
		case os.IsNotExist(statErr):
			err = api.Errorf(api.NotFound, "Could not find %s file path: %s", what, name).WithHint("give the paths of two PEM files: first the certificate, then its key")
		case statErr != nil:
			err = fmt.Errorf("Could not read %s file: %w", what, statErr)
		case info.Size() > maxPairFile:
			err = api.Errorf(api.TooLarge, "Could not read %s file: %s has %d bytes, the limit is %d", what, name, info.Size(), maxPairFile)
		default:
			data, readErr := os.ReadFile(name)
			if readErr != nil {
				err = fmt.Errorf("Could not read %s file: %w", what, readErr)
			}
			return string(data)
		}
		return ""
	}
	certificate, key = read("certificate", certFile), read("certificate key", keyFile)
	return certificate, key, err
}

// maxPairFile bounds what is read as a certificate or key, in bytes.
const maxPairFile = 64 << 10

// onlyServer connects to the server of an argument that names a remote and nothing else; "" is the local one.
func (a *app) onlyServer(arg string) (*client.Client, error) {
	if arg != "" && !strings.HasSuffix(arg, ":") {
		return nil, api.Errorf(api.BadRequest, "%q is not a remote: its name ends with a colon", arg)
	}
	c, _, err := a.server(arg)
	return c, err
}

func (a *app) clusterRotateKeyCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "rotate-key [<remote>:]",
		Short: "Give the cluster a key that nobody has who had the present one",
		Long: "Give the cluster a key that nobody has who had the present one.\n\nEvery member has the cluster's key, so a server that was removed, or stolen, could still\n" +
			"pass for the cluster. After this it cannot. Nobody is led to the new certificate: remotes\n" +
			"ask for the new fingerprint, and join tokens that were handed out before are no good; the\nnew ones are shown by \"incus cluster list-tokens\".",
		Example: "  incus cluster rotate-key\n  incus cluster remove node3 --rotate-key",
		Args:    argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			remote := ""
			if len(args) > 0 {
				remote = args[0]
			}
			c, err := a.onlyServer(remote)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if err := requireCluster(ctx, c); err != nil {
				return err
			}
			const question = "Remotes will have to confirm the new fingerprint, and join tokens that were handed out are no good any more.\nAre you sure? (yes/no): "
			if err := a.unlessYes(ctx, yes, question); err != nil {
				return err
			}
			if err := c.RotateKey(ctx); err != nil {
				return err
			}
			a.sayRotated(ctx, c)
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "Do not ask")
	return cmd
}

// sayRotated names the new fingerprint, for whoever must confirm it.
func (a *app) sayRotated(ctx context.Context, c *client.Client) {
	server, _, err := c.Server(ctx)
	if err != nil {
		a.say("The cluster has a new key; incus info shows its fingerprint")
		return
	}
	a.keepCertificate(server.Environment.Certificate)
	a.say("The cluster has a new key; its certificate fingerprint is %s", server.Environment.CertificateFingerprint)
}

func (a *app) adminUpdateCertificateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "update-certificate <certificate> <key>",
		Short: "Replace the certificate of this server, which is in no cluster",
		Long: "Replace the certificate of this server, which is in no cluster.\n\nBoth files are PEM. Remotes that know the present certificate are led to the new one. In a\n" +
			"cluster there is \"incus cluster update-certificate\"; a member's own certificate is renewed\nby itself.",
		Args: argCount(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			certificate, key, err := readPair(args[0], args[1])
			if err != nil {
				return err
			}
			if err := a.daemon().UpdateServerCertificate(cmd.Context(), certificate, key); err != nil {
				return err
			}
			a.say("Successfully updated server certificate")
			return nil
		},
	}
}
