package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

const function = 12

// What follows a type of each kind in BTF, in bytes: the same for all, and for each of its members
// (Documentation/bpf/btf.rst).
var follows = map[uint32]struct{ all, each uint32 }{
	1: {all: 4}, 3: {all: 12}, 4: {each: 12}, 5: {each: 12}, 6: {each: 8},
	13: {each: 8}, 14: {all: 4}, 15: {each: 12}, 17: {all: 4}, 19: {each: 12},
}

// functionID gives the id of a function in the kernel's types.
func functionID(btf []byte, name string) (uint32, error) {
	word := binary.LittleEndian.Uint32
	header := word(btf[4:])
	types := btf[header+word(btf[8:]):][:word(btf[12:])]
	strings := btf[header+word(btf[16:]):]
	wanted := append([]byte(name), 0)
	for id := uint32(1); len(types) > 0; id++ {
		info := word(types[4:])
		kind, members := info>>24&0x1f, info&0xffff
		if kind == function && bytes.HasPrefix(strings[word(types):], wanted) {
			return id, nil
		}
		more := follows[kind]
		types = types[12+more.all+more.each*members:]
	}
	return 0, fmt.Errorf("the kernel has no function %s", name)
}
