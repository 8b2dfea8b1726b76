package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// clients checks what clients of controller-runtime and client-go do besides.
func (c *checker) clients(ctx context.Context) {
	one := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "one", Namespace: namespace}, Data: map[string]string{"a": "1"}}
	err := c.client.Create(ctx, one)
	if err == nil && !c.seen.any("POST", "/configmaps", "application/vnd.kubernetes.protobuf") {
		err = errors.New("it was not sent so")
	}
	c.holds("built-in kinds are sent in protobuf", err)
	old := one.DeepCopy()
	one.Data["a"] = "2"
	if err = c.client.Update(ctx, one); err == nil {
		old.Data["a"] = "3"
		err = refused(c.client.Update(ctx, old), apierrors.IsConflict, "the object has been modified")
	}
	c.holds("an update of an old version is a conflict", err)
	stale := one.DeepCopy()
	stale.ResourceVersion = old.ResourceVersion
	base := stale.DeepCopy()
	stale.Data["a"] = "4"
	patch := client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})
	c.holds("so is a patch with a lock", refused(c.client.Patch(ctx, stale, patch), apierrors.IsConflict, ""))
	c.holds("what is there cannot be made", refused(c.client.Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "one", Namespace: namespace},
	}), apierrors.IsAlreadyExists, `configmaps "one" already exists`))
	apply := applycorev1.ConfigMap("applied", namespace).WithData(map[string]string{"b": "1"})
	if err = c.client.Apply(ctx, apply, client.FieldOwner("here")); err == nil {
		other := applycorev1.ConfigMap("applied", namespace).WithData(map[string]string{"b": "2"})
		err = refused(c.client.Apply(ctx, other, client.FieldOwner("there")), apierrors.IsConflict, `conflict with "here"`)
		if err == nil {
			err = c.client.Apply(ctx, other, client.FieldOwner("there"), client.ForceOwnership)
		}
	}
	c.holds("apply finds conflicts, and takes over by force", err)
	strict := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "library.example.com/v1", "kind": "Shelf",
		"metadata": map[string]any{"name": "odd", "namespace": namespace}, "spec": map[string]any{"colour": "red"},
	}}
	err = refused(client.WithFieldValidation(c.client, metav1.FieldValidationStrict).Create(ctx, strict), apierrors.IsBadRequest, `unknown field "spec.colour"`)
	c.holds("strict validation finds an unknown field", err)
	err = c.pages(ctx)
	c.holds("lists come in pages", err)
	uid := types.UID("00000000-0000-0000-0000-000000000000")
	err = refused(c.client.Delete(ctx, one, client.Preconditions{UID: &uid}), apierrors.IsConflict, "the UID in the precondition")
	c.holds("a deletion with another uid is a conflict", err)
}

func (c *checker) pages(ctx context.Context) error {
	for i := range 5 {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			GenerateName: fmt.Sprintf("page-%d-", i), Namespace: namespace, Labels: map[string]string{"page": "yes"},
		}}
		if err := c.client.Create(ctx, object); err != nil {
			return err
		}
	}
	list, count := &corev1.ConfigMapList{}, 0
	for {
		options := []client.ListOption{client.InNamespace(namespace), client.MatchingLabels{"page": "yes"}, client.Limit(2), client.Continue(list.Continue)}
		if err := c.client.List(ctx, list, options...); err != nil {
			return err
		}
		count += len(list.Items)
		if list.Continue == "" {
			break
		}
	}
	if count != 5 {
		return fmt.Errorf("%d of 5", count)
	}
	return c.client.DeleteAllOf(ctx, &corev1.ConfigMap{}, client.InNamespace(namespace), client.MatchingLabels{"page": "yes"})
}

// caches checks informers of all kinds of clients.
func (c *checker) caches(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	typed, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		c.holds("a client is made", err)
		return
	}
	factory := informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithNamespace(namespace))
	configs := factory.Core().V1().ConfigMaps()
	added := make(chan string, 100)
	_, err = configs.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { added <- object.(*corev1.ConfigMap).Name },
	})
	if err == nil {
		factory.Start(ctx.Done())
		err = synced(ctx, configs.Informer().HasSynced)
	}
	if err == nil {
		_, err = configs.Lister().ConfigMaps(namespace).Get("one")
	}
	c.holds("an informer of client-go has what is there", err)
	if !c.seen.any("GET", "/configmaps?", "sendInitialEvents=true") {
		err = errors.New("it made lists instead")
	}
	c.holds("by a watch that begins with it", err)
	if err = c.client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "news", Namespace: namespace}}); err == nil {
		err = awaited(added, "news")
	}
	c.holds("and sees what comes", err)
	shelves := groupVersion.WithResource("shelves")
	dynamics, err := dynamic.NewForConfig(c.config)
	if err == nil {
		informer := dynamicinformer.NewFilteredDynamicSharedInformerFactory(dynamics, 0, namespace, nil).ForResource(shelves)
		go informer.Informer().Run(ctx.Done())
		if err = synced(ctx, informer.Informer().HasSynced); err == nil {
			_, err = informer.Lister().ByNamespace(namespace).Get("first")
		}
	}
	c.holds("a dynamic informer has kinds of one's own", err)
	bare, err := metadata.NewForConfig(c.config)
	if err == nil {
		var one *metav1.PartialObjectMetadata
		one, err = bare.Resource(shelves).Namespace(namespace).Get(ctx, "first", metav1.GetOptions{})
		if err == nil && (one.Name != "first" || len(one.Finalizers) != 1) {
			err = fmt.Errorf("it is %+v", one)
		}
	}
	c.holds("a client of metadata reads them", err)
}

func synced(ctx context.Context, done cache.InformerSynced) error {
	ctx, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	if !cache.WaitForCacheSync(ctx.Done(), done) {
		return errors.New("not in time")
	}
	return nil
}

func awaited(names <-chan string, wanted string) error {
	end := time.After(waitFor)
	for {
		select {
		case name := <-names:
			if name == wanted {
				return nil
			}
		case <-end:
			return fmt.Errorf("%s was not seen", wanted)
		}
	}
}
