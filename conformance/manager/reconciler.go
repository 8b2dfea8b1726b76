package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

const (
	namespace  = "library"
	leaseName  = "shelves"
	finalizer  = group + "/shelf"
	ofShelf    = group + "/shelf"
	roomIndex  = "spec.room"
	typeReady  = "Ready"
	leaseFor   = 4 * time.Second
	renewFor   = 3 * time.Second
	retryEvery = 500 * time.Millisecond
)

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return scheme, addTypes(scheme)
}

// serve runs a manager until the context ends.
func serve(ctx context.Context, config *rest.Config, name, certificates string, port int) error {
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	ofShelves, err := labels.Parse(ofShelf)
	if err != nil {
		return err
	}
	lease, renew, retry := leaseFor, renewFor, retryEvery
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                  scheme,
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		LeaderElection:          true,
		LeaderElectionID:        leaseName,
		LeaderElectionNamespace: namespace,
		LeaseDuration:           &lease,
		RenewDeadline:           &renew,
		RetryPeriod:             &retry,
		WebhookServer:           webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: port, CertDir: certificates}),
		Cache: cache.Options{
			DefaultNamespaces: map[string]cache.Config{namespace: {}},
			ByObject:          map[client.Object]cache.ByObject{&corev1.ConfigMap{}: {Label: ofShelves}},
		},
	})
	if err != nil {
		return err
	}
	index := func(object client.Object) []string { return []string{object.(*Shelf).Spec.Room} }
	if err := manager.GetFieldIndexer().IndexField(ctx, &Shelf{}, roomIndex, index); err != nil {
		return err
	}
	reconciler := &reconciler{client: manager.GetClient(), recorder: manager.GetEventRecorder("shelf-controller"), name: name}
	toShelf := func(_ context.Context, object client.Object) []ctrl.Request {
		shelf := object.GetLabels()[ofShelf]
		if shelf == "" {
			return nil
		}
		return []ctrl.Request{{NamespacedName: types.NamespacedName{Namespace: object.GetNamespace(), Name: shelf}}}
	}
	err = ctrl.NewControllerManagedBy(manager).
		For(&Shelf{}).
		Owns(&corev1.ConfigMap{}).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(toShelf), builder.OnlyMetadata).
		Complete(reconciler)
	if err != nil {
		return err
	}
	err = ctrl.NewWebhookManagedBy(manager, &Shelf{}).WithDefaulter(hooks{}).WithValidator(hooks{}).Complete()
	if err != nil {
		return err
	}
	return manager.Start(ctx)
}

type reconciler struct {
	client   client.Client
	recorder events.EventRecorder
	name     string
}

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	shelf := &Shelf{}
	if err := r.client.Get(ctx, request.NamespacedName, shelf); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !shelf.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.finalize(ctx, shelf)
	}
	if controllerutil.AddFinalizer(shelf, finalizer) {
		return ctrl.Result{}, r.client.Update(ctx, shelf)
	}
	if err := r.books(ctx, shelf); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.status(ctx, shelf)
}

// books makes the ConfigMaps that are missing, and takes away those of books that are gone.
func (r *reconciler) books(ctx context.Context, shelf *Shelf) error {
	wanted := map[string]bool{}
	for _, book := range shelf.Spec.Books {
		name := shelf.Name + "-" + book
		wanted[name] = true
		made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: shelf.Namespace}}
		result, err := controllerutil.CreateOrUpdate(ctx, r.client, made, func() error {
			made.Labels = map[string]string{ofShelf: shelf.Name}
			made.Data = map[string]string{"book": book, "color": shelf.Spec.Color}
			return controllerutil.SetControllerReference(shelf, made, r.client.Scheme())
		})
		if err != nil {
			return err
		}
		if result == controllerutil.OperationResultCreated {
			r.recorder.Eventf(shelf, made, corev1.EventTypeNormal, "BookPlaced", "Place", "the book %s is on the shelf", book)
		}
	}
	there := &corev1.ConfigMapList{}
	if err := r.client.List(ctx, there, client.InNamespace(shelf.Namespace), client.MatchingLabels{ofShelf: shelf.Name}); err != nil {
		return err
	}
	for i := range there.Items {
		if !wanted[there.Items[i].Name] {
			if err := r.client.Delete(ctx, &there.Items[i]); client.IgnoreNotFound(err) != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reconciler) status(ctx context.Context, shelf *Shelf) error {
	before := shelf.DeepCopyObject().(*Shelf)
	room := &ShelfList{}
	if err := r.client.List(ctx, room, client.InNamespace(shelf.Namespace), client.MatchingFields{roomIndex: shelf.Spec.Room}); err != nil {
		return err
	}
	secrets := &metav1.PartialObjectMetadataList{}
	secrets.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("SecretList"))
	if err := r.client.List(ctx, secrets, client.InNamespace(shelf.Namespace), client.MatchingLabels{ofShelf: shelf.Name}); err != nil {
		return err
	}
	shelf.Status.ObservedGeneration = shelf.Generation
	shelf.Status.Books = len(shelf.Spec.Books)
	shelf.Status.InRoom = len(room.Items)
	shelf.Status.Secrets = len(secrets.Items)
	shelf.Status.By = r.name
	meta.SetStatusCondition(&shelf.Status.Conditions, metav1.Condition{
		Type: typeReady, Status: metav1.ConditionTrue, Reason: "Placed", ObservedGeneration: shelf.Generation,
		Message: strings.Join(shelf.Spec.Books, ", "),
	})
	return r.client.Status().Patch(ctx, shelf, client.MergeFrom(before))
}

// finalize leaves a note that it was here.
func (r *reconciler) finalize(ctx context.Context, shelf *Shelf) error {
	if !controllerutil.ContainsFinalizer(shelf, finalizer) {
		return nil
	}
	note := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("note-%s", shelf.Name), Namespace: shelf.Namespace},
		Data:       map[string]string{"by": r.name},
	}
	if err := r.client.Create(ctx, note); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	controllerutil.RemoveFinalizer(shelf, finalizer)
	return client.IgnoreNotFound(r.client.Update(ctx, shelf))
}
