package cli

import (
	"errors"
	"strings"
	"testing"
)

func TestDoctorSaysByWhatBuildsAreShutIn(t *testing.T) {
	for _, c := range []struct {
		root        bool
		lacks       error
		state, note string
	}{
		{true, nil, wellFound, "makes its builds' namespaces and mounts itself"},
		{false, nil, wellFound, "newuidmap"},
		{false, errors.New("no newuidmap here"), lessFound, "no newuidmap here"},
	} {
		f := lookRights(c.root, c.lacks)
		if f.State != c.state || !strings.Contains(f.Note, c.note) || (f.Do == "") != (c.state == wellFound) {
			t.Errorf("root %v, %v: %+v", c.root, c.lacks, f)
		}
	}
}
