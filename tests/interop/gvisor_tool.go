// One call of gVisor's 9P client a run, like diod's tools: gvisor_tool PORT ls|stat|read|link|CHANGE PATH
//
// gVisor is a library of Debian. Its client asks for 9P2000.L with additions of its own, and does without
// those that a server does not know.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"gvisor.dev/gvisor/pkg/p9"
	"gvisor.dev/gvisor/pkg/unet"
)

const messageSize = 64 << 10

func main() {
	if len(os.Args) != 4 {
		check(fmt.Errorf("usage: gvisor_tool PORT ls|stat|read|link|CHANGE PATH"))
	}
	root := attach(os.Args[1])
	action, path := os.Args[2], os.Args[3]
	directory, name := "", path
	if slash := strings.LastIndex(path, "/"); slash >= 0 {
		directory, name = path[:slash], path[slash+1:]
	}
	switch action {
	case "ls":
		list(walk(root, path))
	case "stat":
		_, _, attr, err := walk(root, path).GetAttr(p9.AttrMaskAll())
		check(err)
		fmt.Println(attr.Size, attr.MTimeSeconds)
	case "read":
		read(walk(root, path))
	case "link":
		target, err := walk(root, path).Readlink()
		check(err)
		fmt.Print(target)
	case "write":
		_, _, _, err := walk(root, path).Open(p9.WriteOnly)
		check(err)
	case "create":
		_, _, _, _, err := walk(root, directory).Create(name, p9.WriteOnly, 0o644, p9.NoUID, p9.NoGID)
		check(err)
	case "mkdir":
		_, err := walk(root, directory).Mkdir(name, 0o755, p9.NoUID, p9.NoGID)
		check(err)
	case "symlink":
		_, err := walk(root, directory).Symlink("target", name, p9.NoUID, p9.NoGID)
		check(err)
	case "hardlink":
		check(walk(root, directory).Link(walk(root, path), "new"))
	case "rename":
		parent := walk(root, directory)
		check(parent.RenameAt(name, parent, "new"))
	case "remove":
		check(walk(root, directory).UnlinkAt(name, 0))
	case "truncate":
		check(walk(root, path).SetAttr(p9.SetAttrMask{Size: true}, p9.SetAttr{}))
	default:
		check(fmt.Errorf("no action %s", action))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func attach(port string) p9.File {
	server, err := net.Dial("tcp", "127.0.0.1:"+port)
	check(err)
	// It reads with MSG_TRUNC, by which TCP drops what it delivers.
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	check(err)
	local, err := net.FileConn(os.NewFile(uintptr(ends[1]), "local"))
	check(err)
	go io.Copy(server, local)
	go io.Copy(local, server)
	socket, err := unet.NewSocket(ends[0])
	check(err)
	client, err := p9.NewClient(socket, messageSize, p9.HighestVersionString())
	check(err)
	root, err := client.Attach("")
	check(err)
	return root
}

func walk(root p9.File, path string) p9.File {
	var names []string
	if path != "" {
		names = strings.Split(path, "/")
	}
	walked, file, err := root.Walk(names)
	check(err)
	// A walk that ends early passes for one that does not.
	if len(walked) < len(names) {
		check(syscall.ENOENT)
	}
	return file
}

func list(directory p9.File) {
	_, _, _, err := directory.Open(p9.ReadOnly)
	check(err)
	for offset := uint64(0); ; {
		entries, err := directory.Readdir(offset, messageSize/2)
		check(err)
		if len(entries) == 0 {
			return
		}
		for _, entry := range entries {
			kind := "-"
			if entry.QID.Type == p9.TypeDir {
				kind = "d"
			}
			fmt.Println(kind, entry.Name)
			offset = entry.Offset
		}
	}
}

func read(file p9.File) {
	_, _, _, err := file.Open(p9.ReadOnly)
	check(err)
	buffer := make([]byte, 1<<20)
	for offset := uint64(0); ; {
		n, err := file.ReadAt(buffer, offset)
		os.Stdout.Write(buffer[:n])
		if n == 0 || err == io.EOF {
			return
		}
		check(err)
		offset += uint64(n)
	}
}
