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

// Asked notes that somebody at this machine asks its peer for something: it is not
// to be quiet now.
func (g *Guest) Asked(now Now) { g.asked = now.Boot + AwakeFor }

// quiet says whether this machine is to sleep as much as it can: it runs on its
// battery, may not build, builds nothing, and nobody asks its peer for anything.
func (g *Guest) quiet(now Now, r *Reading, builds int, v *Verdict) {
	if !r.OnBattery || v.May || builds > 0 {
		g.quietFrom = 0
		return
	}
	if g.quietFrom == 0 {
		g.quietFrom = now.Boot
	}
	if left := max(g.quietFrom+QuietAfter, g.asked) - now.Boot; left > 0 {
		v.NextMS = min(v.NextMS, left)
		return
	}
	v.Quiet = true
}
