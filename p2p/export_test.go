package p2p

// JoinBody and JoinText let a fuzz test write bodies under a right checksum.
func JoinBody(j JoinCode) []byte {
	b, err := decodeJoin(j.String()[len(joinPrefix):])
	if err != nil {
		return nil
	}
	return b[joinHead : len(b)-joinSum]
}

func JoinText(body []byte) string {
	return sealJoin(append(make([]byte, joinHead), body[:min(len(body), 60000)]...))
}
