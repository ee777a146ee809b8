package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A prompter asks a person questions, and reads one line per answer.
type prompter struct {
	in       *bufio.Reader
	out, err io.Writer
	// hidden asks by ask and reads a line that is not shown, from the terminal; nil where there
	// is none.
	hidden func(ask func()) (string, error)
}

// prompter reads answers from stdin, and nothing else may do so afterwards, except
// between two questions.
func (a *app) prompter() *prompter {
	return &prompter{in: bufio.NewReader(a.stdin), out: a.stdout, err: a.stderr, hidden: a.hidden}
}

// line asks question and returns the answer without white space around it. The end
// of the input is an error: nobody is there to answer.
func (p *prompter) line(ctx context.Context, question string) (string, error) {
	return p.read(ctx, question, func() (string, error) {
		text, err := p.in.ReadString('\n')
		return strings.TrimSpace(text), err
	})
}

// secret is line for what nobody may read over the shoulder.
func (p *prompter) secret(ctx context.Context, question string) (string, error) {
	if p.hidden == nil {
		return p.line(ctx, question)
	}
	text, err := p.read(ctx, "", func() (string, error) {
		return p.hidden(func() { fmt.Fprint(p.out, question) })
	})
	fmt.Fprintln(p.out) // the end of the line was not shown either
	return text, err
}

func (p *prompter) read(ctx context.Context, question string, get func() (string, error)) (string, error) {
	fmt.Fprint(p.out, question)
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	// A read from a terminal cannot be interrupted, so Ctrl-C must not wait for it.
	// The goroutine that is left then ends with the process.
	go func() {
		text, err := get()
		answers <- answer{text, err}
	}()
	select {
	case a := <-answers:
		switch {
		case errors.Is(a.err, io.EOF) && a.text != "": // a last line without its end
			return a.text, nil
		case errors.Is(a.err, io.EOF):
			lines := strings.Split(strings.TrimSpace(question), "\n")
			return "", fmt.Errorf("the input ended before the answer to %q", lines[len(lines)-1])
		}
		return a.text, a.err
	case <-ctx.Done():
		fmt.Fprintln(p.out)
		return "", ctx.Err()
	}
}

// An unanswered error is not the fault of who answers: asking again would not help.
type unanswered struct{ error }

func (u unanswered) Unwrap() error { return u.error }

// text asks until check accepts the answer. An empty answer means fallback. An unanswered error of
// check ends it.
func (p *prompter) text(ctx context.Context, question, fallback string, check func(string) error) (string, error) {
	for {
		text, err := p.line(ctx, question)
		if err != nil {
			return "", err
		}
		if text == "" {
			text = fallback
		}
		err = check(text)
		var end unanswered
		switch {
		case err == nil:
			return text, nil
		case errors.As(err, &end):
			return "", end.error
		}
		p.invalid(err)
	}
}

// yesNo asks until the answer is yes or no. An empty answer means fallback.
func (p *prompter) yesNo(ctx context.Context, question string, fallback bool) (bool, error) {
	for {
		text, err := p.line(ctx, question)
		if err != nil {
			return false, err
		}
		if yes, ok := parseYesNo(text, fallback); ok {
			return yes, nil
		}
		p.invalid(nil)
	}
}

// invalid says that the answer was of no use, and why if that is not obvious.
func (p *prompter) invalid(why error) {
	if why != nil {
		fmt.Fprintf(p.err, "%v\n", why)
	}
	fmt.Fprintln(p.err, "Invalid input, try again.")
}

func parseYesNo(text string, fallback bool) (yes, ok bool) {
	switch strings.ToLower(text) {
	case "":
		return fallback, true
	case "yes", "y":
		return true, true
	case "no", "n":
		return false, true
	default:
		return false, false
	}
}
