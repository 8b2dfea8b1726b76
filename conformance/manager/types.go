package main

import (
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const group = "library.example.com"

var groupVersion = schema.GroupVersion{Group: group, Version: "v1"}

// Shelf has a ConfigMap for each of its books.
type Shelf struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ShelfSpec   `json:"spec,omitempty"`
	Status            ShelfStatus `json:"status,omitempty"`
}

type ShelfSpec struct {
	Books []string `json:"books,omitempty"`
	// Room is indexed.
	Room string `json:"room,omitempty"`
	// Color is filled in by the defaulting webhook.
	Color string `json:"color,omitempty"`
}

type ShelfStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// By is the process that wrote this.
	By    string `json:"by,omitempty"`
	Books int    `json:"books"`
	// InRoom counts the shelves of the same room, by the index.
	InRoom int `json:"inRoom"`
	// Secrets counts secrets of the shelf, by a cache of metadata alone.
	Secrets    int                `json:"secrets"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

type ShelfList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Shelf `json:"items"`
}

func (s *Shelf) DeepCopyInto(out *Shelf) {
	*out = *s
	s.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec.Books = append([]string(nil), s.Spec.Books...)
	out.Status.Conditions = nil
	for i := range s.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, *s.Status.Conditions[i].DeepCopy())
	}
}

func (s *Shelf) DeepCopyObject() runtime.Object {
	out := &Shelf{}
	s.DeepCopyInto(out)
	return out
}

func (l *ShelfList) DeepCopyObject() runtime.Object {
	out := &ShelfList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]Shelf, len(l.Items))
	for i := range l.Items {
		l.Items[i].DeepCopyInto(&out.Items[i])
	}
	return out
}

func addTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(groupVersion, &Shelf{}, &ShelfList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
	return nil
}

func definition() *apiextensions.CustomResourceDefinition {
	text := apiextensions.JSONSchemaProps{Type: "string"}
	integer := apiextensions.JSONSchemaProps{Type: "integer"}
	open := true
	condition := apiextensions.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &open}
	list := func(items apiextensions.JSONSchemaProps) apiextensions.JSONSchemaProps {
		return apiextensions.JSONSchemaProps{Type: "array", Items: &apiextensions.JSONSchemaPropsOrArray{Schema: &items}}
	}
	object := func(fields map[string]apiextensions.JSONSchemaProps) apiextensions.JSONSchemaProps {
		return apiextensions.JSONSchemaProps{Type: "object", Properties: fields}
	}
	schema := object(map[string]apiextensions.JSONSchemaProps{
		"spec": object(map[string]apiextensions.JSONSchemaProps{"books": list(text), "room": text, "color": text}),
		"status": object(map[string]apiextensions.JSONSchemaProps{
			"observedGeneration": integer, "by": text, "books": integer, "inRoom": integer, "secrets": integer,
			"conditions": list(condition),
		}),
	})
	return &apiextensions.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "shelves." + group},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: group,
			Scope: apiextensions.NamespaceScoped,
			Names: apiextensions.CustomResourceDefinitionNames{Plural: "shelves", Singular: "shelf", Kind: "Shelf", ListKind: "ShelfList"},
			Versions: []apiextensions.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema:       &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &schema},
				Subresources: &apiextensions.CustomResourceSubresources{Status: &apiextensions.CustomResourceSubresourceStatus{}},
			}},
		},
	}
}
