// Command trampolines leaves nobody else room at kernel functions: it attaches programs that do nothing to
// each, until the kernel refuses more of them (E2BIG, BPF_MAX_TRAMP_LINKS), and holds them. Who wants to
// know of a call has to use a kprobe then.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"syscall"
	"unsafe"

	"gopulse.test/services/internal/tied"
)

// bpf(2), include/uapi/linux/bpf.h.
const (
	sysBpf            = 321
	progLoad          = 5
	rawTracepointOpen = 17
	typeTracing       = 26
	traceFentry       = 24
)

// Kernels before 5.11 charge programs to it.
const rlimitMemlock = 8

// More than any kernel has room for.
const plenty = 200

func main() {
	tied.ToParent()
	unlimited := syscall.Rlimit{Cur: ^uint64(0), Max: ^uint64(0)}
	if err := syscall.Setrlimit(rlimitMemlock, &unlimited); err != nil {
		log.Fatal(err)
	}
	types, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		log.Fatal(err)
	}
	for _, function := range os.Args[1:] {
		id, err := functionID(types, function)
		if err != nil {
			log.Fatal(err)
		}
		number, err := occupy(id)
		if err != nil {
			log.Fatalf("%s, after %d programs: %v", function, number, err)
		}
	}
	fmt.Println("occupied")
	syscall.Pause()
}

// occupy attaches programs until there is no more room, and says how many. They are never closed.
func occupy(function uint32) (int, error) {
	for number := range plenty {
		program, err := load(function)
		if err != nil {
			return number, err
		}
		open := struct {
			name    uint64
			program uint32
			_       uint32
		}{program: program}
		_, err = bpf(rawTracepointOpen, unsafe.Pointer(&open), unsafe.Sizeof(open))
		if errors.Is(err, syscall.E2BIG) {
			return number, nil
		}
		if err != nil {
			return number, err
		}
	}
	return plenty, errors.New("there is room for more")
}

// load gives a program for the entry of a function: r0 = 0; exit.
func load(function uint32) (uint32, error) {
	instructions := [2]uint64{0x00000000_000000b7, 0x00000000_00000095}
	license := [...]byte{'G', 'P', 'L', 0}
	attributes := struct {
		kind, length          uint32
		instructions, license unsafe.Pointer
		_                     [11]uint32
		expectedAttachType    uint32
		_                     [9]uint32
		function              uint32
	}{
		kind:               typeTracing,
		length:             uint32(len(instructions)),
		instructions:       unsafe.Pointer(&instructions),
		license:            unsafe.Pointer(&license),
		expectedAttachType: traceFentry,
		function:           function,
	}
	return bpf(progLoad, unsafe.Pointer(&attributes), unsafe.Sizeof(attributes))
}

func bpf(command uintptr, attributes unsafe.Pointer, size uintptr) (uint32, error) {
	fd, _, errno := syscall.Syscall(sysBpf, command, uintptr(attributes), size)
	if errno != 0 {
		return 0, errno
	}
	return uint32(fd), nil
}
