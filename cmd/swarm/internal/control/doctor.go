package control

import (
	"context"
	"net/http"
)

// Doctor is the part of a daemon that says what a consumer would have to
// compile, and why.
type Doctor interface {
	Diagnose(ctx context.Context, target string) (Diagnosis, error)
}

// Diagnosis is what the swarm can serve of what this machine wants.
type Diagnosis struct {
	Schema  int      `json:"schema"`
	Target  string   `json:"target"`
	Wanted  int      `json:"wanted"`
	Served  int      `json:"served"` // by the release that is shown
	Lacks   []Lack   `json:"lacks"`
	BDeps   []string `json:"with_bdeps"` // what --with-bdeps=y would add
	Portage string   `json:"portage"`    // version
	Notes   []string `json:"notes"`
	Winners []Winner `json:"pkgdir_winners"` // of this machine's own PKGDIR
}

// Winner is a package of the machine's own that emerge takes before the release's.
type Winner struct {
	CPV     string `json:"cpv"`
	Path    string `json:"path"`
	NewerMS int64  `json:"newer_ms"`
}

// Lack is a package that the release cannot serve. Kind is built (not released
// yet), use, version, slot, configuration, never (nobody has built it) or
// refused.
type Lack struct {
	CPV  string `json:"cpv"`
	Kind string `json:"kind"`
	Why  string `json:"why"`
	Do   string `json:"do"` // the line that closes it; "" when there is none
}

// Diagnose looks at what this machine wants.
func (c *Client) Diagnose(ctx context.Context, target string) (Diagnosis, error) {
	return ask[Diagnosis](ctx, c, "/v1/diagnose", target)
}

func doctorRoutes(mux *http.ServeMux, d Doctor) {
	post(mux, "POST /v1/diagnose", maxBody, d.Diagnose)
}
