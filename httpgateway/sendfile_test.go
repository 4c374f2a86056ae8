package httpgateway_test

import (
	"bytes"
	"net"
	"sync/atomic"
	"testing"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/httpgateway/httpgatewaytest"
)

// Every wrapper between the handler and the socket has to pass files on.
func TestFilesReachTheConnectionAsFilesSoThatSendfileSendsThem(t *testing.T) {
	cat := httpgatewaytest.New(t)
	data := content(100_000, 1)
	cat.PutLocal(data)
	g := newGateway(t, cat, nil)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var files atomic.Int32
	done := make(chan error, 1)
	go func() { done <- g.ServeTelling(l, func() { files.Add(1) }, func() {}) }()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	for i, p := range []string{one(t, cat, g, data), "/desktop/stable/Packages", "/desktop/stable/Packages.gz"} {
		if r, _, err := fetch(t, "http://"+l.Addr().String()+p); err != nil || r.StatusCode != 200 || files.Load() != int32(i+1) {
			t.Errorf("%s: %v, %d files sent as files", p, err, files.Load())
		}
	}
}

// A disk that fails while it serves is the gateway's trouble and not the
// client's: the other holders' bytes go into the same answer.
func TestADiskThatCannotReadAPackageLeavesItToTheOtherHolders(t *testing.T) {
	for _, size := range []int{5_000, 100_000, 2_000_000} {
		cat := httpgatewaytest.New(t)
		data := content(size, 1)
		id := cat.PutLocal(data)
		cat.PutRemote(id, &httpgatewaytest.Holder{Data: data})
		g, addr, _ := serve(t, cat, nil)
		path := "http://" + addr + one(t, cat, g, data)
		cat.Fail(id)
		for _, header := range [][]string{nil, {"Range", "bytes=100-"}} {
			r, got, err := fetch(t, path, header...)
			want := data
			if header != nil {
				want = data[100:]
			}
			if err != nil || r.StatusCode >= 300 || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v: %v, %d bytes came", size, header, err, len(got))
			}
		}
		if _, err := cat.Local(id); err == nil {
			t.Errorf("%d bytes: the store was not told", size)
		}
	}
}

// With nobody else the answer is cut, and never a short one that looks whole.
func TestADiskThatCannotReadTheOnlyCopyCutsTheAnswer(t *testing.T) {
	cat := httpgatewaytest.New(t)
	data := content(100_000, 1)
	id := cat.PutLocal(data)
	g, addr, _ := serve(t, cat, nil)
	path := "http://" + addr + one(t, cat, g, data)
	cat.Fail(id)
	if r, got, err := fetch(t, path); err == nil && r.StatusCode == 200 {
		t.Errorf("%d of %d bytes came as a whole answer", len(got), len(data))
	}
	if r, _, err := fetch(t, path); err != nil || r.StatusCode != 503 {
		t.Errorf("the next one should be told that nobody holds %s: %v %v", cas.Sum(data), r, err)
	}
}
