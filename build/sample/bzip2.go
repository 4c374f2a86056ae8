package sample

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math/bits"
	"slices"
)

// bzip2Pack writes b as a bzip2 file of one block. The standard library only
// reads bzip2, and all that is wanted here is one file of 2 KiB that Portage's
// "bzip2 -d" takes; so the codes are of (nearly) equal length and nothing is
// tuned.
func bzip2Pack(b []byte) ([]byte, error) {
	if len(b) == 0 || len(b) > 50_000 {
		return nil, errors.New("pack with bzip2: wants 1 to 50,000 bytes")
	}
	crc := bzip2CRC(b)
	data := runLengths(b)
	column, origin := burrowsWheeler(data)
	symbols, used := moveToFront(column)
	alphabet := len(used) + 2 // RUNA, RUNB, the ranks from 1, end of block

	var w bitWriter
	w.write(0x425a6831, 32) // "BZh1": blocks of 100 kB
	w.write(0x314159, 24)   // a block
	w.write(0x265359, 24)
	w.write(uint64(crc), 32)
	w.write(0, 1) // not randomised
	w.write(uint64(origin), 24)
	w.writeUsed(used)
	// At least two tables are wanted; both are the same, all groups use the
	// first.
	groups := (len(symbols) + 49) / 50
	w.write(2, 3)
	w.write(uint64(groups), 15)
	for range groups {
		w.write(0, 1)
	}
	lengths, codes := flatCode(alphabet)
	for range 2 {
		w.writeLengths(lengths)
	}
	for _, s := range symbols {
		w.write(uint64(codes[s]), lengths[s])
	}
	w.write(0x177245, 24) // the end, with the CRC of all blocks: this one's
	w.write(0x385090, 24)
	w.write(uint64(crc), 32)
	return w.bytes(), nil
}

// bzip2CRC is CRC-32 with the bits of bytes and result in the other order.
func bzip2CRC(b []byte) uint32 {
	rev := make([]byte, len(b))
	for i, c := range b {
		rev[i] = bits.Reverse8(c)
	}
	return bits.Reverse32(crc32.ChecksumIEEE(rev))
}

// runLengths writes 4 to 259 equal bytes as 4 of them and a count.
func runLengths(b []byte) []byte {
	var out []byte
	for i := 0; i < len(b); {
		n := 1
		for i+n < len(b) && n < 259 && b[i+n] == b[i] {
			n++
		}
		out = append(out, bytes.Repeat(b[i:i+1], min(n, 4))...)
		if n >= 4 {
			out = append(out, byte(n-4))
		}
		i += n
	}
	return out
}

// burrowsWheeler sorts the rotations of b and returns their last bytes, and
// which of them is b itself.
func burrowsWheeler(b []byte) ([]byte, int) {
	n := len(b)
	twice := append(bytes.Clone(b), b...)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(x, y int) int {
		if c := bytes.Compare(twice[x:x+n], twice[y:y+n]); c != 0 {
			return c
		}
		return x - y
	})
	out := make([]byte, n)
	origin := 0
	for i, at := range order {
		out[i] = twice[at+n-1]
		if at == 0 {
			origin = i
		}
	}
	return out, origin
}

// moveToFront turns bytes into ranks, runs of rank 0 into RUNA and RUNB, and
// adds the end of the block. used lists the bytes that occur, sorted.
func moveToFront(b []byte) (symbols []int, used []byte) {
	used = slices.Compact(slices.Sorted(slices.Values(b)))
	ranks := slices.Clone(used)
	zeros := 0
	flush := func() {
		for ; zeros > 0; zeros = (zeros - 1) / 2 {
			symbols = append(symbols, (zeros-1)&1)
		}
	}
	for _, c := range b {
		r := slices.Index(ranks, c)
		if r == 0 {
			zeros++
			continue
		}
		flush()
		symbols = append(symbols, r+1)
		copy(ranks[1:], ranks[:r])
		ranks[0] = c
	}
	flush()
	return append(symbols, len(used)+1), used
}

// flatCode is a complete prefix code whose lengths differ by one at the most.
func flatCode(n int) (lengths []int, codes []int) {
	long := bits.Len(uint(n - 1))
	short := 1<<long - n // so many codes are one bit shorter
	lengths, codes = make([]int, n), make([]int, n)
	next := 0
	for i := range n {
		lengths[i] = long
		if i < short {
			lengths[i] = long - 1
		}
		if i == short {
			next <<= 1
		}
		codes[i] = next
		next++
	}
	return lengths, codes
}

// bitWriter writes the most significant bit first.
type bitWriter struct {
	out  []byte
	free int // bits left in the last byte
}

func (w *bitWriter) write(v uint64, n int) {
	for i := n - 1; i >= 0; i-- {
		if w.free == 0 {
			w.out = append(w.out, 0)
			w.free = 8
		}
		w.free--
		w.out[len(w.out)-1] |= byte(v>>i&1) << w.free
	}
}

// writeUsed writes which bytes occur: 16 bits for the ranges of 16, then 16
// for each range that has any.
func (w *bitWriter) writeUsed(used []byte) {
	var ranges [16]uint64
	all := uint64(0)
	for _, c := range used {
		ranges[c>>4] |= 1 << (15 - c&15)
		all |= 1 << (15 - c>>4)
	}
	w.write(all, 16)
	for _, r := range ranges {
		if r != 0 {
			w.write(r, 16)
		}
	}
}

// writeLengths writes a table's code lengths as differences.
func (w *bitWriter) writeLengths(lengths []int) {
	at := lengths[0]
	w.write(uint64(at), 5)
	for _, l := range lengths {
		for ; at < l; at++ {
			w.write(0b10, 2)
		}
		for ; at > l; at-- {
			w.write(0b11, 2)
		}
		w.write(0, 1)
	}
}

func (w *bitWriter) bytes() []byte { return w.out }
