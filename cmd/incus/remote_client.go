package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/conf"
)

// ensureClientCert makes this client's certificate, if it has none.
func (a *app) ensureClientCert() error {
	if own, err := a.conf.ClientCert(""); own != nil || err != nil {
		return err
	}
	if !a.quiet {
		fmt.Fprintln(a.stderr, "Generating a client certificate. This may take a minute...")
	}
	_, err := conf.MakeClientCert(a.dirs, time.Now())
	return err
}

func (a *app) remoteGenerateCertificateCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "generate-certificate",
		Short:             "Make the certificate by which servers know this client",
		Long:              "Make the certificate by which servers know this client.\n\n\"incus remote add\" does that, too, when it needs one.",
		Example:           "  incus remote generate-certificate",
		Args:              argCount(0, 0),
		ValidArgsFunction: a.completeArgs(),
		RunE: func(*cobra.Command, []string) error {
			if own, err := a.conf.ClientCert(""); own != nil || err != nil {
				if err == nil {
					err = api.Errorf(api.Conflict, "A client certificate is already present").
						WithHint("servers know this client by it. To give it up, move client.crt and client.key away from %s", a.dirs.User)
				}
				return err
			}
			return a.ensureClientCert()
		},
	}
}

func (a *app) remoteGetClientCertificateCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "get-client-certificate [<file>]",
		Short: "Print the certificate by which servers know this client",
		Long: "Print the certificate by which servers know this client, or write it to a file.\n\n" +
			"It is made if there is none. The key is not printed: it never leaves this machine.",
		Example: "  incus remote get-client-certificate > laptop.crt\n  incus config trust add-certificate prod: laptop.crt",
		Args:    argCount(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			switch format {
			case "pem":
			case "pfx":
				return api.Errorf(api.NotImplemented, "This client does not write PFX files").
					WithHint("openssl pkcs12 -export -in %s/client.crt -inkey %s/client.key -out client.pfx", a.dirs.User, a.dirs.User)
			default:
				return api.Errorf(api.BadRequest, "Invalid certificate format %q", format).WithHint("use pem")
			}
			if err := a.ensureClientCert(); err != nil {
				return err
			}
			own, err := a.clientCert(a.defaultRemote())
			if err != nil {
				return err
			}
			if len(args) > 0 {
				return os.WriteFile(args[0], own.PEM, 0o644)
			}
			_, err = a.stdout.Write(own.PEM)
			return err
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "pem", "Print as `FORMAT` pem")
	mustComplete(cmd, "format", cobra.FixedCompletions([]string{"pem"}, noFiles))
	return cmd
}

func (a *app) remoteGetClientTokenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get-client-token <duration>",
		Short: "Print a token that is as good as this client's certificate, for a while",
		Long: "Print a token that is as good as this client's certificate, for a while.\n\n" +
			"Programs send it to servers that trust the certificate, in the header\n" +
			"\"Authorization: Bearer TOKEN\". It cannot be revoked but by removing the certificate.",
		Example:           "  incus remote get-client-token 30m",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeArgs(),
		RunE: func(_ *cobra.Command, args []string) error {
			expiry, err := time.ParseDuration(args[0])
			if err != nil || expiry <= 0 {
				return api.Errorf(api.BadRequest, "Invalid duration %q", args[0]).WithHint("for example 30m, or 12h")
			}
			if err := a.ensureClientCert(); err != nil {
				return err
			}
			own, err := a.clientCert("")
			if err != nil {
				return err
			}
			token, err := clientToken(own, time.Now(), expiry)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, token)
			return err
		},
	}
}

// clientToken is a JSON web token (RFC 7519) in the name of this client's certificate, signed by its
// key: ES384 or RS256, as Incus does.
func clientToken(own *conf.ClientCert, now time.Time, expiry time.Duration) (string, error) {
	key, isKey := own.TLS.PrivateKey.(crypto.Signer)
	algorithm := ""
	switch k := own.TLS.PrivateKey.(type) {
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P384() {
			algorithm = "ES384"
		}
	case *rsa.PrivateKey:
		algorithm = "RS256"
	}
	if !isKey || algorithm == "" {
		return "", api.Errorf(api.CertInvalid, "Unable to sign JWT with available key algorithms").
			WithHint("the client's key has to be ECDSA P-384 or RSA; incus remote generate-certificate makes one where there is none")
	}
	header, err := part(struct {
		Algorithm string `json:"alg"`
		Type      string `json:"typ"`
	}{algorithm, "JWT"})
	if err != nil {
		return "", err
	}
	claims, err := part(struct {
		Subject   string `json:"sub"`
		Expires   int64  `json:"exp"`
		NotBefore int64  `json:"nbf"`
		IssuedAt  int64  `json:"iat"`
	}{client.Fingerprint(own.TLS.Leaf), now.Add(expiry).Unix(), now.Unix(), now.Unix()})
	if err != nil {
		return "", err
	}
	text := header + "." + claims
	signature, err := sign(key, text)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// part is one part of a token.
func part(value any) (string, error) {
	data, err := json.Marshal(value)
	return base64.RawURLEncoding.EncodeToString(data), err
}

// sign signs text as RFC 7518 has it: of ECDSA the two numbers in full length, one behind the other.
func sign(key crypto.Signer, text string) ([]byte, error) {
	k, isECDSA := key.(*ecdsa.PrivateKey)
	if !isECDSA {
		sum := sha256.Sum256([]byte(text))
		return key.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	sum := sha512.Sum384([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 2*48)
	r.FillBytes(signature[:48])
	s.FillBytes(signature[48:])
	return signature, nil
}
