// The manager is a controller-runtime program as people write them: a kind of its own, a reconciler that owns ConfigMaps, a
// finalizer, events, webhooks, leader election. `manager check` installs its kind, runs two processes of it against a server, and
// prints a line for each thing that holds: "ok WHAT" or "FAIL WHAT | WHY".
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "manager:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) < 2 {
		return fmt.Errorf("say what to do: run or check")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "file that says where the server is")
	name := flags.String("name", "", "run: what this process calls itself")
	certificates := flags.String("certificates", "", "run: folder with the certificate of the webhooks")
	port := flags.Int("port", 0, "run: port of the webhooks")
	folder := flags.String("folder", "", "check: folder for files")
	if err := flags.Parse(os.Args[2:]); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	// A test asks more at once than a client is allowed by default.
	config.QPS, config.Burst = 200, 400
	ctx := ctrl.SetupSignalHandler()
	switch os.Args[1] {
	case "run":
		logger := klog.NewKlogr()
		ctrl.SetLogger(logger)
		return serve(ctx, config, *name, *certificates, *port)
	case "check":
		ctrl.SetLogger(logr.Discard())
		return check(context.Background(), config, *kubeconfig, *folder)
	default:
		return fmt.Errorf("%s is neither run nor check", os.Args[1])
	}
}
