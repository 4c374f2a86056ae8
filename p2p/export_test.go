package p2p

import "sync"

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

// Freeze makes a host answer no more which process it is; the channel is closed
// when somebody asks for it.
func (h *Host) Freeze() <-chan struct{} {
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	h.Handle(instanceProto, func(s Stream) {
		once()
		<-h.ctx.Done()
		_ = s.Reset()
	})
	return asked
}
