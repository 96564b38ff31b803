package main

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// tarCommand is as much of tar as `kubectl cp` uses: `tar cf - PATH` and `tar [options] -xmf - [-C DIRECTORY]`.
// The os.Root keeps every name, symbolic links included, inside the directory given at start.
func tarCommand(c call) error {
	switch args := c.args[1:]; {
	case len(args) == 3 && args[0] == "cf" && args[1] == "-":
		if err := pack(c, inside(args[2])); err != nil {
			return c.fail(2, "tar: %v", err)
		}
		return nil
	case slices.Contains(args, "-xmf"):
		directory := "."
		if at := slices.Index(args, "-C"); at >= 0 && at+1 < len(args) {
			directory = inside(args[at+1])
		}
		if err := unpack(c, directory); err != nil {
			return c.fail(2, "tar: %v", err)
		}
		return nil
	}
	return c.fail(2, "tar: expected `cf - PATH` or `-xmf - [-C DIRECTORY]`, not %q", c.args[1:])
}

// inside turns a container path into one relative to the root directory.
func inside(name string) string {
	relative := strings.TrimPrefix(path.Clean("/"+name), "/")
	if relative == "" {
		return "."
	}
	return relative
}

func pack(c call, name string) error {
	archive := tar.NewWriter(c.out)
	err := fs.WalkDir(c.files.FS(), name, func(entry string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return packOne(archive, c.files, entry)
	})
	return errors.Join(err, archive.Close())
}

func packOne(archive *tar.Writer, files *os.Root, name string) error {
	file, err := files.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header, err := tar.FileInfoHeader(info, "")
	if err != nil {
		return err
	}
	header.Name = name
	if err := archive.WriteHeader(header); err != nil || info.IsDir() {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}

func unpack(c call, directory string) error {
	archive := tar.NewReader(c.in)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := inside(path.Join(directory, header.Name))
		switch header.Typeflag {
		case tar.TypeDir:
			err = makeDirectories(c.files, name)
		case tar.TypeReg:
			err = unpackFile(c.files, name, archive)
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(files *os.Root, name string, content io.Reader) error {
	if err := makeDirectories(files, path.Dir(name)); err != nil {
		return err
	}
	file, err := files.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}

// makeDirectories is MkdirAll, which os.Root has only since Go 1.25.
func makeDirectories(files *os.Root, name string) error {
	made := ""
	for _, part := range strings.Split(name, "/") {
		made = path.Join(made, part)
		if err := files.Mkdir(made, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
