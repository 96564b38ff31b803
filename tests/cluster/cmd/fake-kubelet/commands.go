package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// container is what exec and attach find behind every pod: no process, only the table below.
type container struct {
	files *os.Root
}

// call is one command being run.
type call struct {
	ctx    context.Context
	args   []string
	in     io.Reader
	out    io.Writer
	err    io.Writer
	resize <-chan remotecommand.TerminalSize
	files  *os.Root
}

var commands = map[string]func(call) error{
	"echo":    echo,
	"cat":     cat,
	"true":    func(call) error { return nil },
	"exit":    exit,
	"sleep":   sleep,
	"bytes":   bytesOut,
	"winsize": winsize,
	"test":    test,
	"tar":     tarCommand,
}

func (c *container) ExecInContainer(ctx context.Context, _ string, _ types.UID, _ string, cmd []string, in io.Reader,
	out, err io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	run := call{ctx: ctx, args: cmd, in: in, out: orDiscard(out), err: orDiscard(err), resize: resize, files: c.files}
	if run.in == nil {
		run.in = strings.NewReader("")
	}
	if len(cmd) == 0 {
		return run.fail(126, "no command given")
	}
	command, known := commands[cmd[0]]
	if !known {
		return run.fail(127, "%s: not in the fixed table of commands", cmd[0])
	}
	return command(run)
}

// AttachContainer joins the container's only process: it repeats its input; without input it prints the log's lines.
func (c *container) AttachContainer(ctx context.Context, _ string, _ types.UID, _ string, in io.Reader,
	out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	to := orDiscard(out)
	if in != nil {
		_, err := io.Copy(to, in)
		return err
	}
	tick := time.NewTicker(logInterval)
	defer tick.Stop()
	for n := 1; ; n++ {
		if _, err := io.WriteString(to, logLine(n)); err != nil {
			return nil // The caller left, which is how an attach ends.
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// orDiscard stands in for a stream the caller did not ask for (the protocol package passes nil then).
func orDiscard(w io.WriteCloser) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

func (c call) fail(code int, format string, args ...any) error {
	fmt.Fprintf(c.err, format+"\n", args...)
	return exitWith(code)
}

func exitWith(code int) error {
	return utilexec.CodeExitError{Err: fmt.Errorf("exit status %d", code), Code: code}
}

func echo(c call) error {
	_, err := fmt.Fprintln(c.out, strings.Join(c.args[1:], " "))
	return err
}

func cat(c call) error {
	_, err := io.Copy(c.out, c.in)
	return err
}

func exit(c call) error {
	code, err := c.number()
	switch {
	case err != nil:
		return err
	case code == 0:
		return nil
	}
	return exitWith(code)
}

func sleep(c call) error {
	seconds, err := c.number()
	if err != nil {
		return err
	}
	select {
	case <-c.ctx.Done():
	case <-time.After(time.Duration(seconds) * time.Second):
	}
	return nil
}

// bytesOut writes as many bytes as asked: a stream whose length and content a test can check at the other end.
func bytesOut(c call) error {
	count, err := c.number()
	if err != nil {
		return err
	}
	_, err = io.CopyN(c.out, pattern{}, int64(count))
	return err
}

// pattern is an endless reader of the letter x.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// winsize prints the first terminal size it is told.
func winsize(c call) error {
	select {
	case size, told := <-c.resize:
		if !told {
			return c.fail(1, "winsize: needs a terminal")
		}
		fmt.Fprintf(c.out, "%dx%d\n", size.Width, size.Height)
		return nil
	case <-time.After(10 * time.Second):
		return c.fail(1, "winsize: no size arrived within 10 s")
	}
}

// test knows `test -d PATH`, which `kubectl cp` asks first.
func test(c call) error {
	if len(c.args) != 3 || c.args[1] != "-d" {
		return c.fail(2, "test: expected -d PATH")
	}
	found, err := c.files.Stat(inside(c.args[2]))
	if err != nil || !found.IsDir() {
		return exitWith(1)
	}
	return nil
}

// number is the command's only argument.
func (c call) number() (int, error) {
	if len(c.args) != 2 {
		return 0, c.fail(2, "%s: expected one number", c.args[0])
	}
	n, err := strconv.Atoi(c.args[1])
	if err != nil || n < 0 {
		return 0, c.fail(2, "%s: expected a number from 0, not %q", c.args[0], c.args[1])
	}
	return n, nil
}
