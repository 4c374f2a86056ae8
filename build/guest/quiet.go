package guest

// Times of being quiet, in milliseconds.
const (
	// QuietAfter is how long there must have been a reason to be quiet: a plug that
	// is moved, or a build that follows another, is none.
	QuietAfter = 60_000
	// AwakeFor is how long a machine is not quiet after its user asked its peer for
	// something.
	AwakeFor = 2 * 60_000
)

// Rest decides when a machine is to sleep as much as it can: for some time it has
// run on its battery with nothing to do, and nobody asks its peer for anything.
type Rest struct {
	from  int64 // since when there is a reason; 0 = there is none
	asked int64 // until when it is awake for who asked
}

// Asked notes that somebody at this machine asks its peer for something: it is not
// to be quiet now.
func (x *Rest) Asked(now Now) { x.asked = now.Boot + AwakeFor }

// Step says whether it is quiet now, and if not, in how many milliseconds it will be
// unless something changes; 0 = it will not. idle says that there is a reason.
func (x *Rest) Step(now Now, idle bool) (quiet bool, in int64) {
	if !idle {
		x.from = 0
		return false, 0
	}
	if x.from == 0 {
		x.from = now.Boot
	}
	in = max(0, max(x.from+QuietAfter, x.asked)-now.Boot)
	return in == 0, in
}

// Asked is Rest's.
func (g *Guest) Asked(now Now) { g.rest.Asked(now) }

// quiet adds to a verdict whether this machine is quiet: it must be on battery, may
// not build and builds nothing.
func (g *Guest) quiet(now Now, r *Reading, builds int, v *Verdict) {
	var in int64
	if v.Quiet, in = g.rest.Step(now, r.OnBattery && !v.May && builds == 0); in > 0 {
		v.NextMS = min(v.NextMS, in)
	}
}
