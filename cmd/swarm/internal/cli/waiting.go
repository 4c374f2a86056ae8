package cli

import (
	"context"
	"fmt"

	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// waiting shows on stderr how far it is what a command waits for, until end is
// called.
func (e *env) waiting(ctx context.Context) (_ context.Context, end func()) {
	w := render.NewWaiting(e.err)
	e.wait = w
	return progress.With(ctx, w.Tell), w.End
}

// fsckStep is where a check stands.
func fsckStep(s control.FsckStep) progress.Step {
	return progress.Step{What: "check the blobs", Done: s.CheckedBytes, All: s.Bytes, Bytes: true, Note: fmt.Sprintf("%d of %d blobs", s.Checked, s.Blobs)}
}

// roundStep is where a round stands, with its forecast.
func roundStep(r view.Round) progress.Step {
	s := progress.Step{What: "round " + r.ID, Done: int64(r.Done), All: int64(r.Jobs), LowMS: r.LeftLowMS, HighMS: r.LeftHighMS, Note: fmt.Sprintf("%d building, %d blocked", r.Building, r.Blocked)}
	if s.HighMS == 0 {
		s.LowMS, s.HighMS = r.LeftMS, r.LeftMS
	}
	return s
}
