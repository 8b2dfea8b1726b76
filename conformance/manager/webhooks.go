package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	admission "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	webhook "sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const hookName = "shelves." + group

// hooks fill a shelf in and refuse some.
type hooks struct{}

func (hooks) Default(_ context.Context, shelf *Shelf) error {
	if shelf.Spec.Color == "" {
		shelf.Spec.Color = "grey"
	}
	return nil
}

func (hooks) ValidateCreate(_ context.Context, shelf *Shelf) (webhook.Warnings, error) {
	return validate(shelf)
}

func (hooks) ValidateUpdate(_ context.Context, old, shelf *Shelf) (webhook.Warnings, error) {
	if old.Spec.Room != shelf.Spec.Room {
		return nil, fmt.Errorf("a shelf cannot be carried from %s to %s", old.Spec.Room, shelf.Spec.Room)
	}
	return validate(shelf)
}

func (hooks) ValidateDelete(_ context.Context, shelf *Shelf) (webhook.Warnings, error) {
	if shelf.Annotations["keep"] == "yes" {
		return nil, fmt.Errorf("the shelf %s is to be kept", shelf.Name)
	}
	return nil, nil
}

func validate(shelf *Shelf) (webhook.Warnings, error) {
	if slices.Contains(shelf.Spec.Books, "forbidden") {
		return nil, fmt.Errorf("the book forbidden is forbidden")
	}
	if len(shelf.Spec.Books) > 3 {
		return webhook.Warnings{"that is a full shelf"}, nil
	}
	return nil, nil
}

// configurations without the authority, which is patched in later.
func configurations(port int) (*admission.MutatingWebhookConfiguration, *admission.ValidatingWebhookConfiguration) {
	none := admission.SideEffectClassNone
	fail := admission.Fail
	at := func(path string) admission.WebhookClientConfig {
		url := fmt.Sprintf("https://127.0.0.1:%d/%s-library-example-com-v1-shelf", port, path)
		return admission.WebhookClientConfig{URL: &url}
	}
	rules := func(operations ...admission.OperationType) []admission.RuleWithOperations {
		return []admission.RuleWithOperations{{
			Operations: operations,
			Rule:       admission.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: []string{"shelves"}},
		}}
	}
	mutating := &admission.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "shelves"},
		Webhooks: []admission.MutatingWebhook{{
			Name: hookName, ClientConfig: at("mutate"), SideEffects: &none, FailurePolicy: &fail,
			AdmissionReviewVersions: []string{"v1"}, Rules: rules(admission.Create, admission.Update),
		}},
	}
	validating := &admission.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "shelves"},
		Webhooks: []admission.ValidatingWebhook{{
			Name: hookName, ClientConfig: at("validate"), SideEffects: &none, FailurePolicy: &fail,
			AdmissionReviewVersions: []string{"v1"}, Rules: rules(admission.Create, admission.Update, admission.Delete),
		}},
	}
	return mutating, validating
}

// writeCertificate makes a certificate for webhooks on loopback; it is its own authority, which is returned in PEM.
func writeCertificate(folder string) ([]byte, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "shelves"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	if err := os.WriteFile(filepath.Join(folder, "tls.crt"), certificate, 0o600); err != nil {
		return nil, err
	}
	return certificate, os.WriteFile(filepath.Join(folder, "tls.key"), secret, 0o600)
}
