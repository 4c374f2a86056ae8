package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/p2p"
)

// banDelay is how long changes of the board are gathered before the bans on it
// are looked at.
const banDelay = time.Second

// Run keeps the network's bans as the board has them: a banned peer's connections
// end, and none is made. It returns when ctx ends.
func (d *Daemon) Run(ctx context.Context) error {
	changed := d.Agent.Changed()
	banned := map[string]bool{}
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		if err := d.applyBans(ctx, banned); err != nil {
			if ctx.Err() != nil || errors.Is(err, agent.ErrStopped) {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			wait.Reset(banDelay)
		}
	}
}

func (d *Daemon) applyBans(ctx context.Context, banned map[string]bool) error {
	now := map[string]bool{}
	err := d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, o := range r.Orders() {
			if o.Verb == claims.VerbBan && o.Scope != r.Self() {
				now[o.Scope] = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for id := range now {
		if !banned[id] {
			// A scope that is no peer ID names nobody who could connect.
			_ = d.Host.Ban(id)
			banned[id] = true
		}
	}
	for id := range banned {
		if !now[id] {
			_ = d.Host.Unban(id) // as above
			delete(banned, id)
		}
	}
	return nil
}

// builtBy lists what a peer built.
func builtBy(r *claims.Replica, peer string) []control.Built {
	out := []control.Built{}
	for _, o := range r.BuiltBy(peer) {
		out = append(out, control.Built{Key: string(o.Key), CPV: o.CPV.String(), CID: o.Artifact.CID, AtMS: o.Stamp.Millis()})
	}
	return out
}

// ackAll acknowledges every peer that is new here.
func ackAll(r *claims.Replica) []claims.Event {
	var evs []claims.Event
	for _, p := range r.Strangers() {
		evs = append(evs, claims.Post{Body: claims.Directive{Verb: claims.VerbAck, Scope: p}})
	}
	return evs
}

func (d *Daemon) keyPath() string { return filepath.Join(d.About.State, p2p.SwarmKeyFile) }

// Rekey makes a new swarm key and the join code for it. The daemon goes on with
// the old one until it is restarted, so that the others can still be reached
// while somebody goes round.
func (d *Daemon) Rekey(context.Context) (control.Rekeyed, error) {
	key := p2p.NewSwarmKey()
	code, err := p2p.NewJoinCode(key, "", d.Host.Addrs())
	if err != nil {
		return control.Rekeyed{}, &control.Error{Kind: control.KindInternal, Message: err.Error(), Hint: "give the daemon an address that others reach: swarm run --listen"}
	}
	if err := key.ReplaceFile(d.keyPath()); err != nil {
		return control.Rekeyed{}, err
	}
	return control.Rekeyed{Schema: 1, Swarm: key.Fingerprint(), Code: code.String()}, nil
}

// rekeyed says that the swarm key on disk is not the one in use.
func (d *Daemon) rekeyed() string {
	key, err := p2p.ReadSwarmKey(d.keyPath())
	if err != nil || key.Fingerprint() == d.Host.Fingerprint() {
		return ""
	}
	return "the swarm key was replaced and this daemon still uses the old one: restart it (swarm run)"
}
