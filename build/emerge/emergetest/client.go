package emergetest

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Client asks a binary host as Portage does: the same requests with the same
// headers in the same order, the same rules of what is fresh and what is an
// error. For one goroutine.
type Client struct {
	// URI is the sync-uri of binrepos.conf.
	URI string
	// Dir keeps the cached index and the fetched packages.
	Dir string
	// HTTP makes the requests; nil = a client of its own.
	HTTP *http.Client
	// Now is the clock for TTL; nil = time.Now.
	Now func() time.Time
}

// Index is a parsed Packages file.
type Index struct {
	Header  map[string]string
	Entries []map[string]string
}

const (
	indexAgent   = "Gentoo Portage"
	packageAgent = "Portage (Gentoo, https://www.gentoo.org) distfile-fetch"
	// tolerance is what Portage adds to the cached TIMESTAMP.
	tolerance = 5
	// indexTimeout is that of Portage's urlopen.
	indexTimeout = 10 * time.Second
	// tries is what FETCHCOMMAND gives wget.
	tries = 3
	// maxIndex bounds an index; one of 60,000 packages has 64 MB.
	maxIndex = 512 << 20
)

func (c *Client) http() *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
}

// Index fetches the index, or finds the cached one to be current.
func (c *Client) Index(ctx context.Context) (*Index, error) {
	cache := filepath.Join(c.Dir, "Packages")
	old, err := readCache(cache)
	if err != nil {
		return nil, err
	}
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	if ttl := number(old.Header["TTL"]); ttl > 0 && number(old.Header["DOWNLOAD_TIMESTAMP"])+ttl > now().Unix() {
		return old, nil
	}
	body, modified, err := c.fetchIndex(ctx, "Packages.gz", number(old.Header["TIMESTAMP"]))
	if errors.Is(err, errNotFound) {
		body, modified, err = c.fetchIndex(ctx, "Packages", number(old.Header["TIMESTAMP"]))
	}
	if errors.Is(err, errNotModified) {
		return old, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch binary host index %s: %w", c.URI, err)
	}
	fresh, err := parse(strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("read binary host index %s: %w", c.URI, err)
	}
	if fresh.Header["VERSION"] != "0" {
		return nil, fmt.Errorf("read binary host index %s: version %q is not supported", c.URI, fresh.Header["VERSION"])
	}
	if modified == 0 {
		modified = number(fresh.Header["TIMESTAMP"])
	}
	if have := number(old.Header["TIMESTAMP"]); have > 0 && modified <= have {
		return old, nil // Portage does not even read a body that is not newer
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("keep index: %w", err)
	}
	body = fmt.Sprintf("DOWNLOAD_TIMESTAMP: %d\n%s", now().Unix(), body)
	if err := os.WriteFile(cache, []byte(body), 0o644); err != nil {
		return nil, fmt.Errorf("keep index: %w", err)
	}
	return fresh, nil
}

var (
	errNotFound    = errors.New("not found")
	errNotModified = errors.New("not modified")
)

func (c *Client) fetchIndex(ctx context.Context, name string, since int64) (body string, modified int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, indexTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.URI, "/")+"/"+name, nil)
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("User-Agent", indexAgent)
	req.Header.Set("Accept-Encoding", "bzip2,gzip,deflate")
	req.Close = true
	if since > 0 {
		req.Header.Set("If-Modified-Since", time.Unix(since+tolerance, 0).UTC().Format(http.TimeFormat))
	}
	res, err := c.http().Do(req)
	if err != nil {
		return "", 0, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		return "", 0, errNotModified
	case http.StatusNotFound:
		return "", 0, errNotFound
	default:
		return "", 0, fmt.Errorf("the server says %s", res.Status)
	}
	if t, err := http.ParseTime(res.Header.Get("Last-Modified")); err == nil {
		modified = t.Unix()
	}
	var r io.Reader = res.Body
	if res.Header.Get("Content-Encoding") == "gzip" {
		if r, err = gzip.NewReader(r); err != nil {
			return "", 0, fmt.Errorf("Content-Encoding: %w", err)
		}
	}
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(r); err != nil {
			return "", 0, fmt.Errorf("unpack %s: %w", name, err)
		}
	}
	b, err := io.ReadAll(io.LimitReader(r, maxIndex))
	if err != nil {
		return "", 0, fmt.Errorf("read %s: %w", name, err)
	}
	return string(b), modified, nil
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func readCache(path string) (*Index, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return &Index{Header: map[string]string{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read cached index: %w", err)
	}
	defer f.Close()
	return parse(f)
}

// parse reads a Packages file as Portage does: lines without a colon are
// passed over, an empty block ends the file, a block without CPV is skipped,
// entries inherit CHOST and repository.
func parse(r io.Reader) (*Index, error) {
	idx := &Index{}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 16<<20)
	block := map[string]string{}
	end := func() bool {
		defer func() { block = map[string]string{} }()
		switch {
		case idx.Header == nil:
			idx.Header = block
		case len(block) == 0:
			return false
		case block["CPV"] != "":
			for from, to := range map[string]string{"CHOST": "CHOST", "repository": "REPO"} {
				if block[to] == "" && idx.Header[from] != "" {
					block[to] = idx.Header[from]
				}
			}
			idx.Entries = append(idx.Entries, block)
		}
		return true
	}
	for sc.Scan() {
		line := strings.TrimRight(sc.Text(), "\r")
		if line == "" {
			if !end() {
				return idx, nil
			}
			continue
		}
		if k, v, ok := strings.Cut(line, ":"); ok {
			block[k] = strings.TrimSpace(v)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("parse index: %w", err)
	}
	end()
	return idx, nil
}

// Fetch downloads the package of an entry as wget under Portage does and
// verifies it as Portage does, unless it is there already. It returns the
// file's path.
func (c *Client) Fetch(ctx context.Context, idx *Index, e map[string]string) (string, error) {
	name := e["PATH"]
	if !slices.ContainsFunc([]string{".gpkg.tar", ".xpak", ".tbz2"}, func(s string) bool { return strings.HasSuffix(name, s) }) ||
		path.IsAbs(name) || path.Clean(name) != name || strings.HasPrefix(name, "..") {
		return "", fmt.Errorf("fetch %s: PATH %q: here the real emerge hangs", e["CPV"], name)
	}
	base := strings.TrimRight(c.URI, "/")
	if u := idx.Header["URI"]; u != "" {
		base = strings.TrimRight(u, "/")
	}
	to := filepath.Join(c.Dir, filepath.FromSlash(name))
	if info, err := os.Stat(to); err == nil && strconv.FormatInt(info.Size(), 10) == e["SIZE"] {
		return to, nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return "", fmt.Errorf("fetch %s: %w", e["CPV"], err)
	}
	f, err := os.Create(to + ".partial")
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w", e["CPV"], err)
	}
	err = c.download(ctx, base+"/"+name, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("fetch %s: %w", e["CPV"], err)
	}
	if err := verify(to+".partial", e); err != nil {
		return "", fmt.Errorf("verify %s: %w", e["CPV"], errors.Join(err, os.Rename(to+".partial", to+"._checksum_failure_")))
	}
	return to, os.Rename(to+".partial", to)
}

// download makes up to three tries and goes on where the last one broke off;
// no answer of 4xx or 5xx is tried again.
func (c *Client) download(ctx context.Context, url string, f *os.File) error {
	var at int64
	var last error
	for range tries {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", packageAgent)
		req.Header.Set("Accept", "*/*")
		req.Header.Set("Accept-Encoding", "identity")
		if at > 0 {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
		}
		res, err := c.http().Do(req)
		if err != nil {
			last = err
			continue
		}
		if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusPartialContent {
			return errors.Join(fmt.Errorf("the server says %s", res.Status), res.Body.Close())
		}
		if res.StatusCode == http.StatusOK && at > 0 {
			at = 0
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return errors.Join(err, res.Body.Close())
			}
		}
		n, err := io.Copy(f, res.Body)
		at += n
		last = errors.Join(err, res.Body.Close())
		if last == nil {
			return nil
		}
	}
	return last
}

func verify(file string, e map[string]string) error {
	if e["SIZE"] == "" {
		return nil // so does Portage
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	m, s := md5.New(), sha1.New()
	n, err := io.Copy(io.MultiWriter(m, s), f)
	if err != nil {
		return err
	}
	for _, c := range []struct{ name, got string }{
		{"SIZE", strconv.FormatInt(n, 10)}, {"MD5", hex.EncodeToString(m.Sum(nil))}, {"SHA1", hex.EncodeToString(s.Sum(nil))},
	} {
		if want := e[c.name]; want != "" && want != c.got {
			return fmt.Errorf("failed on %s verification: got %s, expected %s", c.name, c.got, want)
		}
	}
	return nil
}

// Select finds, for names "category/package", the entries that -G would take
// (the newest BUILD_TIME) with everything that these need at run time, needs
// first. It reads names out of RDEPEND and PDEPEND and resolves nothing: every
// package that is named and is in the index counts as needed.
func (idx *Index) Select(names ...string) ([]map[string]string, error) {
	newest := make(map[string]map[string]string)
	for _, e := range idx.Entries {
		cp := nameOf(e["CPV"])
		if old, ok := newest[cp]; !ok || number(e["BUILD_TIME"]) > number(old["BUILD_TIME"]) {
			newest[cp] = e
		}
	}
	var out []map[string]string
	seen := make(map[string]bool)
	var visit func(cp string)
	visit = func(cp string) {
		e, ok := newest[cp]
		if !ok || seen[cp] {
			return
		}
		seen[cp] = true
		for _, dep := range depRE.FindAllString(e["RDEPEND"]+" "+e["PDEPEND"], -1) {
			if n := nameOf(dep); n != "" {
				visit(n)
			} else {
				visit(dep)
			}
		}
		out = append(out, e)
	}
	for _, n := range names {
		if newest[n] == nil {
			return nil, fmt.Errorf("there are no binary packages to satisfy %q", n)
		}
		visit(n)
	}
	return out, nil
}

var (
	depRE = regexp.MustCompile(`[A-Za-z0-9_][A-Za-z0-9+_.-]*/[A-Za-z0-9_][A-Za-z0-9+_.-]*`)
	cpvRE = regexp.MustCompile(`^(.+?)-[0-9]+(\.[0-9]+)*[a-z]?((_alpha|_beta|_pre|_rc|_p)[0-9]*)*(-r[0-9]+)?$`)
)

// nameOf is the package of a CPV, "" if there is no version.
func nameOf(cpv string) string {
	if m := cpvRE.FindStringSubmatch(cpv); m != nil {
		return m[1]
	}
	return ""
}

// consume is "emerge -G NAME...": it reads binrepos.conf of the configuration
// in the environment, and fetches.
func consume(args []string, env map[string]string, stdout io.Writer) error {
	root := env["PORTAGE_CONFIGROOT"]
	var uri, location string
	files, err := filepath.Glob(filepath.Join(root, "/etc/portage/binrepos.conf/*.conf"))
	if err != nil {
		return err
	}
	for _, f := range append(files, filepath.Join(root, "/etc/portage/binrepos.conf")) {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a directory, or absent
		}
		for l := range strings.Lines(string(b)) {
			k, v, _ := strings.Cut(l, "=")
			switch strings.TrimSpace(k) {
			case "sync-uri":
				uri = strings.TrimSpace(v)
			case "location":
				location = strings.TrimSpace(v)
			}
		}
	}
	if uri == "" {
		return errors.New("binrepos.conf names no sync-uri")
	}
	if location == "" {
		location = filepath.Join(root, "/var/cache/binhost/swarm")
	}
	c := &Client{URI: uri, Dir: location}
	ctx := context.Background()
	idx, err := c.Index(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			names = append(names, strings.TrimLeft(a, "=<>~"))
		}
	}
	for i, n := range names {
		if cp := nameOf(n); cp != "" {
			names[i] = cp
		}
	}
	entries, err := idx.Select(names...)
	if err != nil {
		return err
	}
	goOn := slices.Contains(args, "--fetchonly") || slices.Contains(args, "--keep-going")
	var failed error
	for i, e := range entries {
		fmt.Fprintf(stdout, ">>> Emerging binary (%d of %d) %s::%s\n", i+1, len(entries), e["CPV"], e["REPO"])
		if _, err := c.Fetch(ctx, idx, e); err != nil {
			fmt.Fprintf(stdout, ">>> Failed to emerge %s\n", e["CPV"])
			if failed = errors.Join(failed, err); !goOn {
				break
			}
		}
	}
	return failed
}

// wantsBinaries reports whether arguments ask for a run as a client.
func wantsBinaries(args []string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		return a == "--getbinpkgonly" || a == "--getbinpkg" ||
			len(a) > 1 && a[0] == '-' && a[1] != '-' && strings.ContainsAny(a, "gG")
	})
}
