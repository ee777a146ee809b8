package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/cmd/incus/internal/table"
)

// logLevels are those of log lines, from the finest.
var logLevels = []string{"debug", "info", "warning", "error"}

func (a *app) monitorCommand() *cobra.Command {
	var types []string
	var pretty, allProjects bool
	var format, level string
	cmd := &cobra.Command{
		Use:   "monitor [<remote>:]",
		Short: "Show what happens, as it happens",
		Long: "Show what happens, as it happens: operations, lifecycle events and, to administrators, the log of the server.\n\n" +
			"It goes on until it is interrupted.",
		Example: "  incus monitor --type=lifecycle\n      Who did what\n\n" +
			"  incus monitor --pretty --type=logging --loglevel=warning\n      What the log warns of",
		Args: argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if pretty {
				format = "pretty"
			}
			show, err := a.eventPrinter(format, level)
			if err != nil {
				return err
			}
			c, err := a.onlyRemote(args)
			if err != nil {
				return err
			}
			listen := c.Events
			if allProjects {
				listen = c.AllEvents
			}
			events, err := listen(cmd.Context(), types...)
			if err != nil {
				return err
			}
			defer events.Close()
			for {
				e, err := events.Next(cmd.Context())
				if cmd.Context().Err() != nil {
					return saidError{130} // as a shell calls Ctrl-C, which is how it ends
				}
				if err != nil {
					return err
				}
				if err := show(e); err != nil {
					return err
				}
			}
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&types, "type", nil, "Show events of `TYPE` only: lifecycle, logging or operation; may be given several times")
	flags.BoolVar(&pretty, "pretty", false, "A line for each event; short for --format=pretty")
	flags.StringVarP(&format, "format", "f", "yaml", "`FORMAT`: json, pretty or yaml")
	flags.StringVar(&level, "loglevel", "", "Of the log, show `LEVEL` and above only: debug, info, warning or error")
	flags.BoolVar(&allProjects, "all-projects", false, "Show the events of all projects")
	return cmd
}

// eventPrinter returns what shows one event.
func (a *app) eventPrinter(format, level string) (func(api.Event) error, error) {
	if format != "pretty" && level != "" {
		return nil, errors.New("Log level filtering can only be used with pretty formatting")
	}
	switch format {
	case "json":
		return func(e api.Event) error {
			data, err := json.Marshal(e)
			fmt.Fprintf(a.stdout, "%s\n\n", data)
			return err
		}, nil
	case "yaml":
		return func(e api.Event) error {
			var object any // with the metadata as keys rather than as text
			data, err := json.Marshal(e)
			if err == nil {
				err = json.Unmarshal(data, &object)
			}
			if err == nil {
				err = table.WriteYAML(a.stdout, object)
			}
			fmt.Fprint(a.stdout, "\n\n")
			return err
		}, nil
	case "pretty":
		lowest := slices.Index(logLevels, level)
		if lowest < 0 && level != "" {
			return nil, fmt.Errorf("not a valid log level: %q; use one of %s", level, strings.Join(logLevels, ", "))
		}
		return func(e api.Event) error { return a.printLine(e, lowest) }, nil
	}
	return nil, fmt.Errorf("Invalid format: %s", format)
}

// printLine shows an event as a line of a log, unless it is finer than the lowest level.
func (a *app) printLine(e api.Event, lowest int) error {
	line, err := logLine(e)
	if err != nil || slices.Index(logLevels, line.Level) < lowest {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-7s [%s] ", strings.ToUpper(line.Level), e.Timestamp.In(a.location).Format("2006-01-02T15:04:05Z07:00"))
	if e.Location != "" && e.Location != "none" {
		fmt.Fprintf(&b, "[%s] ", e.Location)
	}
	b.WriteString(line.Message)
	for _, key := range slices.Sorted(maps.Keys(line.Context)) {
		fmt.Fprintf(&b, " %s=%q", key, line.Context[key])
	}
	fmt.Fprintln(a.stdout, b.String())
	return nil
}

// logLine is an event of any type as a line of a log.
func logLine(e api.Event) (api.EventLogInfo, error) {
	line := api.EventLogInfo{Level: "info"}
	switch e.Type {
	case api.EventOperation:
		var op api.Operation
		err := json.Unmarshal(e.Metadata, &op)
		line.Message = fmt.Sprintf("ID: %s, Class: %s, Description: %s", op.ID, op.Class, op.Description)
		line.Context = map[string]string{"Status": op.Status, "Err": op.Err, "Location": op.Location}
		return line, err
	case api.EventLifecycle:
		var info api.EventLifecycleInfo
		err := json.Unmarshal(e.Metadata, &info)
		line.Message = "Action: " + info.Action + ", Source: " + info.Source
		line.Context = make(map[string]string)
		for key, value := range info.Context {
			line.Context[key] = fmt.Sprint(value)
		}
		if info.Requestor != nil {
			line.Message += ", Requestor: " + info.Requestor.Protocol + "/" + info.Requestor.Username + " (" + info.Requestor.Address + ")"
		}
		return line, err
	}
	return line, json.Unmarshal(e.Metadata, &line)
}
