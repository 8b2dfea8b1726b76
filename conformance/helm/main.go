// The judge of charts: Helm itself. A case is a line of JSON, and so is what becomes of it.
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
	_ "time/tzdata"

	"github.com/google/uuid"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	"helm.sh/helm/v3/pkg/strvals"
	"sigs.k8s.io/yaml"
)

// request is a case: a chart as files, what is set over its values, and the release.
type request struct {
	Files       map[string][]byte `json:"files"`
	Values      []string          `json:"values"`
	Set         []setting         `json:"set"`
	Release     release           `json:"release"`
	KubeVersion string            `json:"kubeVersion"`
	APIVersions []string          `json:"apiVersions"`
	Shows       string            `json:"shows"`
	Folder      bool              `json:"folder"`
	Renders     int               `json:"renders"`
}

type setting struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

type release struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Revision  int    `json:"revision"`
	Upgrade   bool   `json:"upgrade"`
}

type answer struct {
	Files     map[string]string `json:"files,omitempty"`
	Manifests []manifest        `json:"manifests,omitempty"`
	Hooks     []hook            `json:"hooks,omitempty"`
	Values    any               `json:"values,omitempty"`
	Error     string            `json:"error,omitempty"`
	ColdUs    int64             `json:"coldUs,omitempty"`
	WarmUs    int64             `json:"warmUs,omitempty"`
}

type manifest struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

type hook struct {
	Name     string   `json:"name"`
	Path     string   `json:"path"`
	Manifest string   `json:"manifest"`
	Events   []string `json:"events"`
	Weight   int      `json:"weight"`
	Policies []string `json:"policies"`
	Logs     []string `json:"logs"`
}

func main() {
	log.SetOutput(io.Discard)
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var asked request
			if err := json.Unmarshal(line, &asked); err != nil {
				fmt.Fprintln(os.Stderr, "cannot read a case:", err)
				os.Exit(2)
			}
			if err := out.Encode(judge(asked)); err != nil {
				fmt.Fprintln(os.Stderr, "cannot answer:", err)
				os.Exit(2)
			}
		}
		if err != nil {
			return
		}
	}
}

// stream is the randomness that ours has too: each case begins it anew.
type stream struct{ next byte }

func (s *stream) Read(into []byte) (int, error) {
	for at := range into {
		s.next = s.next*167 + 13
		into[at] = s.next
	}
	return len(into), nil
}

func judge(asked request) answer {
	source := &stream{}
	rand.Reader = source
	uuid.SetRand(source)
	if asked.Renders > 0 {
		timed, err := timed(asked)
		if err != nil {
			return answer{Error: err.Error()}
		}
		return timed
	}
	loaded, err := loadAsked(asked)
	if err != nil {
		return answer{Error: err.Error()}
	}
	rendered, err := render(asked, loaded)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return rendered
}

// timed says how long renders take in this process: from files, and of charts that have been loaded. Helm's library keeps no
// templates that have been read.
func timed(asked request) (answer, error) {
	var cold, warm []int64
	for range asked.Renders {
		started := time.Now()
		loaded, err := loadAsked(asked)
		if err != nil {
			return answer{}, err
		}
		between := time.Now()
		if _, err := render(asked, loaded); err != nil {
			return answer{}, err
		}
		cold = append(cold, time.Since(started).Microseconds())
		warm = append(warm, time.Since(between).Microseconds())
	}
	slices.Sort(cold)
	slices.Sort(warm)
	return answer{ColdUs: cold[len(cold)/2], WarmUs: warm[len(warm)/2]}, nil
}

func loadAsked(asked request) (*chart.Chart, error) {
	files := make([]*loader.BufferedFile, 0, len(asked.Files))
	for name, data := range asked.Files {
		files = append(files, &loader.BufferedFile{Name: name, Data: data})
	}
	sort.Slice(files, func(a, b int) bool { return files[a].Name < files[b].Name })
	return load(asked.Folder && asked.Renders == 0, files)
}

func render(asked request, loaded *chart.Chart) (answer, error) {
	values, err := combine(asked)
	if err != nil {
		return answer{}, err
	}
	caps, err := capabilities(asked)
	if err != nil {
		return answer{}, err
	}
	if err := chartutil.ProcessDependenciesWithMerge(loaded, values); err != nil {
		return answer{}, err
	}
	if asked.Shows == "crds" {
		told := answer{}
		for _, each := range loaded.CRDObjects() {
			told.Manifests = append(told.Manifests, manifest{Name: each.Filename, Content: string(each.File.Data)})
		}
		return told, nil
	}
	options := chartutil.ReleaseOptions{
		Name: asked.Release.Name, Namespace: asked.Release.Namespace, Revision: asked.Release.Revision,
		IsInstall: !asked.Release.Upgrade, IsUpgrade: asked.Release.Upgrade,
	}
	top, err := chartutil.ToRenderValuesWithSchemaValidation(loaded, values, options, caps, false)
	if err != nil {
		return answer{}, err
	}
	if loaded.Metadata.KubeVersion != "" && !chartutil.IsCompatibleRange(loaded.Metadata.KubeVersion, caps.KubeVersion.String()) {
		return answer{}, fmt.Errorf("chart requires kubeVersion: %s which is incompatible with Kubernetes %s", loaded.Metadata.KubeVersion, caps.KubeVersion.String())
	}
	rendered, err := engine.Render(loaded, top)
	if err != nil {
		return answer{}, err
	}
	if asked.Shows == "files" {
		return answer{Files: rendered}, nil
	}
	for name := range rendered {
		if strings.HasSuffix(name, "NOTES.txt") {
			delete(rendered, name)
		}
	}
	order := releaseutil.InstallOrder
	if asked.Shows == "removal" {
		order = releaseutil.UninstallOrder
	}
	hooks, manifests, err := releaseutil.SortManifests(rendered, nil, order)
	if err != nil {
		return answer{}, err
	}
	sorted := answer{}
	for _, each := range manifests {
		sorted.Manifests = append(sorted.Manifests, manifest{Name: each.Name, Content: each.Content})
	}
	if asked.Shows == "removal" {
		hooks = nil
	}
	for _, each := range hooks {
		told := hook{Name: each.Name, Path: each.Path, Manifest: each.Manifest, Weight: each.Weight}
		for _, event := range each.Events {
			told.Events = append(told.Events, event.String())
		}
		for _, policy := range each.DeletePolicies {
			told.Policies = append(told.Policies, policy.String())
		}
		for _, policy := range each.OutputLogPolicies {
			told.Logs = append(told.Logs, policy.String())
		}
		sorted.Hooks = append(sorted.Hooks, told)
	}
	return sorted, nil
}

// load reads a chart; from a folder as it lies on a disk, where some files may be ignored.
func load(isFolder bool, files []*loader.BufferedFile) (*chart.Chart, error) {
	if !isFolder {
		return loader.LoadFiles(files)
	}
	folder, err := os.MkdirTemp("", "chart")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	for _, file := range files {
		path := filepath.Join(folder, filepath.FromSlash(file.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, file.Data, 0o644); err != nil {
			return nil, err
		}
	}
	return loader.LoadDir(folder)
}

func capabilities(asked request) (*chartutil.Capabilities, error) {
	caps := chartutil.DefaultCapabilities.Copy()
	version, err := chartutil.ParseKubeVersion(asked.KubeVersion)
	if err != nil {
		return nil, err
	}
	caps.KubeVersion = *version
	// As a cluster tells it, with what its vendor added.
	caps.KubeVersion.Version = "v" + strings.TrimPrefix(asked.KubeVersion, "v")
	caps.APIVersions = asked.APIVersions
	return caps, nil
}

func combine(asked request) (map[string]any, error) {
	base := map[string]any{}
	for _, text := range asked.Values {
		over := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &over); err != nil {
			return nil, fmt.Errorf("failed to parse values: %w", err)
		}
		base = merged(base, over)
	}
	for _, each := range asked.Set {
		var err error
		switch each.Kind {
		case "set":
			err = strvals.ParseInto(each.Text, base)
		case "string":
			err = strvals.ParseIntoString(each.Text, base)
		case "json":
			err = strvals.ParseJSON(each.Text, base)
		case "literal":
			err = strvals.ParseLiteralInto(each.Text, base)
		case "file":
			err = strvals.ParseIntoFile(each.Text, base, func(path []rune) (any, error) {
				data, found := asked.Files[string(path)]
				if !found {
					return nil, fmt.Errorf("no file %s", string(path))
				}
				return string(data), nil
			})
		default:
			err = fmt.Errorf("no kind of setting %q", each.Kind)
		}
		if err != nil {
			return nil, err
		}
	}
	return base, nil
}

// merged is what Helm's command line does with one file of values after another: tables are merged, all else replaced.
func merged(under, over map[string]any) map[string]any {
	out := make(map[string]any, len(under))
	for key, value := range under {
		out[key] = value
	}
	for key, value := range over {
		if table, is := value.(map[string]any); is {
			if below, was := out[key].(map[string]any); was {
				out[key] = merged(below, table)
				continue
			}
		}
		out[key] = value
	}
	return out
}
