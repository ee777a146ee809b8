package network

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"time"
)

// toolTime bounds one call of nft.
const toolTime = 20 * time.Second

// table is where all rules of this daemon are.
const table = "inet incus"

// Firewall names what NAT is done with: "nftables", or "none" where it is not there.
func Firewall() string {
	if _, err := exec.LookPath("nft"); err != nil {
		return "none"
	}
	return "nftables"
}

// chain is the name of a network's chain: letters and digits stand for themselves.
func chain(n Network) string {
	var name strings.Builder
	name.WriteString("pstrt.")
	for _, c := range []byte(n.Name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			name.WriteByte(c)
		} else {
			fmt.Fprintf(&name, "_%02x", c)
		}
	}
	return name.String()
}

// nat makes the machine hide a network behind its own address, as far as the network says so.
func (m *Manager) nat(ctx context.Context, n Network) error {
	rules, err := natRules(n)
	if err != nil {
		return err
	}
	if len(rules) == 0 {
		return m.removeNAT(ctx, n)
	}
	if Firewall() == "none" {
		m.warnOnce("nft", "NAT")
		return nil
	}
	var script strings.Builder
	fmt.Fprintf(&script, "add table %s\nadd chain %s %s { type nat hook postrouting priority 100; policy accept; }\nflush chain %s %s\n",
		table, table, chain(n), table, chain(n))
	for _, rule := range rules {
		fmt.Fprintf(&script, "add rule %s %s %s\n", table, chain(n), rule)
	}
	_, err = nft(ctx, script.String())
	return err
}

// natRules are the rules of a network's chain.
func natRules(n Network) ([]string, error) {
	var rules []string
	for family, word := range map[string]string{"ipv4": "ip", "ipv6": "ip6"} {
		a := address(n, family+".address")
		if a == "" || n.Config[family+".nat"] != "true" {
			continue
		}
		_, subnet, err := net.ParseCIDR(a)
		if err != nil {
			return nil, err
		}
		do := "masquerade"
		if to := n.Config[family+".nat.address"]; to != "" {
			do = "snat " + word + " to " + to
		}
		rules = append(rules, fmt.Sprintf("%s saddr %s %s daddr != %s %s", word, subnet, word, subnet, do))
	}
	return rules, nil
}

// removeNAT removes a network's chain, and the table with the last one.
func (m *Manager) removeNAT(ctx context.Context, n Network) error {
	if Firewall() == "none" {
		return nil
	}
	script, err := removalOf(ctx, n)
	if err != nil || script == "" {
		return err
	}
	if _, err := nft(ctx, script); err != nil {
		// A member that shares the network namespace may just have done it.
		if again, listErr := removalOf(ctx, n); listErr == nil && again == "" {
			return nil
		}
		return err
	}
	return nil
}

// removalOf is the script that removes a network's chain; "" if there is none.
func removalOf(ctx context.Context, n Network) (string, error) {
	listed, err := nft(ctx, "list table "+table+"\n")
	switch {
	case err != nil:
		return "", ctx.Err() // there is no table, unless the time was over
	case !strings.Contains(listed, "chain "+chain(n)+" "):
		return "", nil
	case strings.Count(listed, "\tchain ") == 1:
		return "delete table " + table + "\n", nil
	}
	return fmt.Sprintf("delete chain %s %s\n", table, chain(n)), nil
}

// nft runs a script: all of it, or nothing.
func nft(ctx context.Context, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	var out, problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(script), &out, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("nft: %w: %s", err, strings.Join(strings.Fields(problems.String()), " "))
	}
	return out.String(), nil
}
