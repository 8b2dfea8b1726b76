package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	coordination "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	waitFor = 20 * time.Second
	// kube-controller-manager's garbage collector looks for new kinds every 30 seconds.
	collectFor = 90 * time.Second
	lookEvery  = 50 * time.Millisecond
)

type checker struct {
	client  client.Client
	config  *rest.Config
	seen    *seen
	warned  *warnings
	failed  int
	folder  string
	file    string
	workers map[string]*exec.Cmd
}

// seen is what went over the wire.
type seen struct {
	sync.Mutex
	requests []string
}

type recording struct {
	next http.RoundTripper
	seen *seen
}

func (r recording) RoundTrip(request *http.Request) (*http.Response, error) {
	r.seen.Lock()
	line := fmt.Sprintf("%s %s %s", request.Method, request.URL.RequestURI(), request.Header.Get("Content-Type"))
	r.seen.requests = append(r.seen.requests, line)
	r.seen.Unlock()
	return r.next.RoundTrip(request)
}

func (s *seen) any(parts ...string) bool {
	s.Lock()
	defer s.Unlock()
	for _, line := range s.requests {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}

type warnings struct {
	sync.Mutex
	texts []string
}

func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _ string, text string) {
	w.Lock()
	defer w.Unlock()
	w.texts = append(w.texts, text)
}

func (c *checker) holds(what string, err error) bool {
	if err == nil {
		fmt.Println("ok", what)
		return true
	}
	c.failed++
	fmt.Printf("FAIL %s | %s\n", what, strings.ReplaceAll(err.Error(), "\n", " "))
	return false
}

// until looks again and again, until it is as it should be.
func until(limit time.Duration, look func() error) error {
	end := time.Now().Add(limit)
	for {
		err := look()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(lookEvery)
	}
}

func check(ctx context.Context, config *rest.Config, file, folder string) error {
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	if err := apiextensions.AddToScheme(scheme); err != nil {
		return err
	}
	c := &checker{config: config, file: file, folder: folder, seen: &seen{}, warned: &warnings{}, workers: map[string]*exec.Cmd{}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return recording{next, c.seen} })
	config.WarningHandlerWithContext = c.warned
	if c.client, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	defer func() {
		for _, worker := range c.workers {
			_ = worker.Process.Kill()
			_ = worker.Wait()
		}
	}()
	if !c.install(ctx) || !c.elect(ctx) {
		return c.end()
	}
	c.webhooks(ctx)
	c.reconciles(ctx)
	c.clients(ctx)
	c.caches(ctx)
	c.takeOver(ctx)
	c.deletes(ctx)
	return c.end()
}

func (c *checker) end() error {
	if c.failed > 0 {
		return fmt.Errorf("%d do not hold", c.failed)
	}
	return nil
}

func (c *checker) install(ctx context.Context) bool {
	err := c.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	if !c.holds("a namespace is made", err) {
		return false
	}
	crd := definition()
	err = c.client.Create(ctx, crd)
	if err == nil {
		err = until(waitFor, func() error {
			if err := c.client.Get(ctx, client.ObjectKeyFromObject(crd), crd); err != nil {
				return err
			}
			for _, condition := range crd.Status.Conditions {
				if condition.Type == apiextensions.Established && condition.Status == apiextensions.ConditionTrue {
					return nil
				}
			}
			return errors.New("not established")
		})
	}
	return c.holds("a CRD is made and established", err)
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// start runs a process of the manager, and waits until its webhooks answer.
func (c *checker) start(name, certificates string) (int, error) {
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	log, err := os.Create(filepath.Join(c.folder, name+".log"))
	if err != nil {
		return 0, err
	}
	worker := exec.Command(self, "run", "--kubeconfig", c.file, "--name", name, "--certificates", certificates, "--port", fmt.Sprint(port))
	worker.Stdout, worker.Stderr = log, log
	if err := worker.Start(); err != nil {
		return 0, err
	}
	c.workers[name] = worker
	return port, until(waitFor, func() error {
		connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			err = connection.Close()
		}
		return err
	})
}

func (c *checker) lease(ctx context.Context) (*coordination.Lease, error) {
	lease := &coordination.Lease{}
	err := c.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: leaseName}, lease)
	if err == nil && (lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "") {
		err = errors.New("nobody holds the lease")
	}
	return lease, err
}

// elect starts two processes; the first leads, the second has the webhooks.
func (c *checker) elect(ctx context.Context) bool {
	certificates := filepath.Join(c.folder, "certificates")
	authority, err := writeCertificate(certificates)
	if err == nil {
		_, err = c.start("first", certificates)
	}
	if err == nil {
		err = until(waitFor, func() error {
			_, err := c.lease(ctx)
			return err
		})
	}
	if !c.holds("the first process holds the lease", err) {
		return false
	}
	port, err := c.start("second", certificates)
	if !c.holds("the second process waits, and answers webhooks", err) {
		return false
	}
	mutating, validating := configurations(port)
	if err = c.client.Create(ctx, mutating); err == nil {
		err = c.client.Create(ctx, validating)
	}
	if !c.holds("webhooks are configured", err) {
		return false
	}
	err = until(waitFor, func() error {
		err := c.client.Create(ctx, shelf("early", "hall"), client.DryRunAll)
		if err != nil && strings.Contains(err.Error(), "failed calling webhook") && strings.Contains(err.Error(), "x509") {
			return nil
		}
		return fmt.Errorf("not refused for the certificate: %w", errors.Join(err, errors.New("made")))
	})
	if err != nil && strings.Contains(err.Error(), "failed calling webhook") {
		// In which words a certificate is distrusted is the TLS library's.
		err = nil
	}
	c.holds("a webhook with an unknown certificate is not called, and the write fails", err)
	before := mutating.DeepCopy()
	mutating.Webhooks[0].ClientConfig.CABundle = authority
	err = c.client.Patch(ctx, mutating, client.StrategicMergeFrom(before))
	if err == nil {
		validating.Webhooks[0].ClientConfig.CABundle = authority
		err = c.client.Update(ctx, validating)
	}
	if err == nil {
		err = until(waitFor, func() error { return c.client.Create(ctx, shelf("early", "hall"), client.DryRunAll) })
	}
	return c.holds("with its authority patched in it is called", err)
}

func shelf(name, room string, books ...string) *Shelf {
	return &Shelf{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Spec: ShelfSpec{Room: room, Books: books}}
}

// get reads a shelf until it is as it should be.
func (c *checker) get(ctx context.Context, name string, limit time.Duration, fine func(*Shelf) bool) (*Shelf, error) {
	out := &Shelf{}
	err := until(limit, func() error {
		if err := c.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, out); err != nil {
			return err
		}
		if !fine(out) {
			return fmt.Errorf("it is %+v %+v", out.Spec, out.Status)
		}
		return nil
	})
	return out, err
}

// refused checks that an error is the server's, of this reason, and says this.
func refused(err error, is func(error) bool, text string) error {
	switch {
	case err == nil:
		return errors.New("it was not refused")
	case !is(err) || !strings.Contains(err.Error(), text):
		return fmt.Errorf("it was refused otherwise: %w", err)
	default:
		return nil
	}
}

func (c *checker) webhooks(ctx context.Context) {
	first := shelf("first", "hall", "atlas", "bible")
	err := c.client.Create(ctx, first)
	if err == nil && first.Spec.Color != "grey" {
		err = fmt.Errorf("the color is %q", first.Spec.Color)
	}
	c.holds("the defaulting webhook fills in", err)
	err = refused(c.client.Create(ctx, shelf("bad", "hall", "forbidden")), apierrors.IsForbidden,
		`admission webhook "shelves.library.example.com" denied the request: the book forbidden is forbidden`)
	c.holds("the validating webhook refuses", err)
	err = c.client.Create(ctx, shelf("full", "attic", "a", "b", "c", "d"))
	c.warned.Lock()
	if err == nil && !strings.Contains(strings.Join(c.warned.texts, "\n"), "that is a full shelf") {
		err = fmt.Errorf("warnings: %q", c.warned.texts)
	}
	c.warned.Unlock()
	c.holds("the validating webhook warns", err)
	moved := first.DeepCopyObject().(*Shelf)
	moved.Spec.Room = "cellar"
	err = refused(c.client.Patch(ctx, moved, client.MergeFrom(first)), apierrors.IsForbidden, "from hall to cellar")
	c.holds("the validating webhook sees what was there", err)
	kept := shelf("kept", "attic")
	kept.Annotations = map[string]string{"keep": "yes"}
	if err = c.client.Create(ctx, kept); err == nil {
		err = refused(c.client.Delete(ctx, kept), apierrors.IsForbidden, "the shelf kept is to be kept")
	}
	c.holds("the validating webhook guards deletion", err)
}

func (c *checker) reconciles(ctx context.Context) {
	is := func(books int) func(*Shelf) bool {
		return func(s *Shelf) bool {
			ready := meta.IsStatusConditionTrue(s.Status.Conditions, typeReady)
			return ready && s.Status.Books == books && s.Status.ObservedGeneration == s.Generation && s.Status.By == "first"
		}
	}
	first, err := c.get(ctx, "first", waitFor, is(2))
	c.holds("the status is written by the leader", err)
	book := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: namespace, Name: "first-atlas"}
	err = until(waitFor, func() error { return c.client.Get(ctx, key, book) })
	if err == nil && (!metav1.IsControlledBy(book, first) || book.Data["color"] != "grey") {
		err = fmt.Errorf("it is %+v", book)
	}
	c.holds("it has config maps that it controls", err)
	uid := book.UID
	if err = c.client.Delete(ctx, book); err == nil {
		err = until(waitFor, func() error {
			if err := c.client.Get(ctx, key, book); err != nil {
				return err
			}
			if book.UID == uid {
				return errors.New("still the old one")
			}
			return nil
		})
	}
	c.holds("one that is deleted is made again (a cache by labels)", err)
	changed := first.DeepCopyObject().(*Shelf)
	changed.Spec.Books = []string{"bible", "cookbook", "dictionary"}
	if err = c.client.Patch(ctx, changed, client.MergeFrom(first)); err == nil {
		_, err = c.get(ctx, "first", waitFor, is(3))
	}
	if err == nil {
		err = until(waitFor, func() error {
			err := c.client.Get(ctx, key, book)
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, errors.New("the config map is still there"))
		})
	}
	c.holds("a change is followed", err)
	if err = c.client.Create(ctx, shelf("other", "hall")); err == nil {
		_, err = c.get(ctx, "other", waitFor, func(s *Shelf) bool { return s.Status.InRoom == 2 })
	}
	c.holds("an index of a field finds others", err)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "lock", Namespace: namespace, Labels: map[string]string{ofShelf: "other"}}}
	if err = c.client.Create(ctx, secret); err == nil {
		_, err = c.get(ctx, "other", waitFor, func(s *Shelf) bool { return s.Status.Secrets == 1 })
	}
	c.holds("a watch of metadata alone sees a secret come", err)
	if err = c.client.Delete(ctx, secret); err == nil {
		_, err = c.get(ctx, "other", waitFor, func(s *Shelf) bool { return s.Status.Secrets == 0 })
	}
	c.holds("and go", err)
	err = until(waitFor, func() error {
		list := &eventsv1.EventList{}
		if err := c.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, event := range list.Items {
			if event.Reason == "BookPlaced" && event.Regarding.Name == "first" && event.ReportingController == "shelf-controller" {
				return nil
			}
		}
		return fmt.Errorf("not among %d events", len(list.Items))
	})
	c.holds("events are told", err)
}

// takeOver kills the leader.
func (c *checker) takeOver(ctx context.Context) {
	before, err := c.lease(ctx)
	if err != nil {
		c.holds("the lease is read", err)
		return
	}
	leader := c.workers["first"]
	delete(c.workers, "first")
	err = leader.Process.Kill()
	_ = leader.Wait()
	if err == nil {
		err = until(waitFor, func() error {
			lease, err := c.lease(ctx)
			if err == nil && *lease.Spec.HolderIdentity == *before.Spec.HolderIdentity {
				err = errors.New("the one that was killed still holds it")
			}
			if err == nil && *lease.Spec.LeaseTransitions != *before.Spec.LeaseTransitions+1 {
				err = fmt.Errorf("%d transitions", *lease.Spec.LeaseTransitions)
			}
			return err
		})
	}
	c.holds("the leader is killed, and the other holds the lease", err)
	if err = c.client.Create(ctx, shelf("late", "loft", "novel")); err == nil {
		_, err = c.get(ctx, "late", waitFor, func(s *Shelf) bool { return s.Status.By == "second" && s.Status.Books == 1 })
	}
	c.holds("and goes on", err)
}

func (c *checker) deletes(ctx context.Context) {
	gone := func(object client.Object, name string, limit time.Duration) error {
		return until(limit, func() error {
			err := c.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object)
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, fmt.Errorf("%s is still there", name))
		})
	}
	err := c.client.Delete(ctx, shelf("first", ""))
	if err == nil {
		err = gone(&Shelf{}, "first", waitFor)
	}
	if err == nil {
		err = c.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "note-first"}, &corev1.ConfigMap{})
	}
	c.holds("the finalizer does its work before a shelf goes", err)
	c.holds("what it owned goes after it", gone(&corev1.ConfigMap{}, "first-bible", collectFor))
	err = c.client.Delete(ctx, shelf("late", ""), client.PropagationPolicy(metav1.DeletePropagationForeground))
	if err == nil {
		err = gone(&Shelf{}, "late", collectFor)
	}
	if err == nil {
		err = refused(c.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "late-novel"}, &corev1.ConfigMap{}), apierrors.IsNotFound, "")
	}
	c.holds("in the foreground it goes before", err)
	kept := shelf("kept", "")
	err = c.client.Patch(ctx, kept, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":null}}`)))
	if err == nil {
		err = c.client.DeleteAllOf(ctx, &Shelf{}, client.InNamespace(namespace))
	}
	if err == nil {
		err = until(waitFor, func() error {
			list := &ShelfList{}
			err := c.client.List(ctx, list, client.InNamespace(namespace))
			if err == nil && len(list.Items) > 0 {
				err = fmt.Errorf("%d are left", len(list.Items))
			}
			return err
		})
	}
	c.holds("all of them go", err)
	mutating, validating := configurations(1)
	for _, object := range []client.Object{mutating, validating, definition(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}} {
		err = errors.Join(err, c.client.Delete(ctx, object))
	}
	c.holds("what was installed is taken away", err)
}
