//! `skep template`: what a chart becomes, as `helm template` prints it. No cluster is asked what it has.

mod fetch;
mod files;
mod post_render;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use api::admission::labels;
use clap::Args;
use helm::{
    manifests::{self, Hook},
    release::{Capabilities, Release},
    world::{KeyKind, World},
};
use jiff::Timestamp;
use rand::RngCore;
use rcgen::KeyPair;

use crate::{
    Charts, DONE,
    chart::{self, Values},
    output,
};

const KUBE_VERSION: &str = "v1.36.0";
/// Of a release, as Helm says it.
const NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const NAME_BYTES_MAX: usize = 53;

/// What charts are told that a cluster serves, unless somebody says more: what `helm template` tells them.
const API_VERSIONS: &str = "v1 admissionregistration.k8s.io/v1 admissionregistration.k8s.io/v1alpha1 \
admissionregistration.k8s.io/v1beta1 internal.apiserver.k8s.io/v1alpha1 apps/v1 apps/v1beta1 apps/v1beta2 \
authentication.k8s.io/v1 authentication.k8s.io/v1alpha1 authentication.k8s.io/v1beta1 authorization.k8s.io/v1 \
authorization.k8s.io/v1beta1 autoscaling/v1 autoscaling/v2 batch/v1 batch/v1beta1 certificates.k8s.io/v1 \
certificates.k8s.io/v1beta1 certificates.k8s.io/v1alpha1 coordination.k8s.io/v1alpha2 coordination.k8s.io/v1beta1 \
coordination.k8s.io/v1 discovery.k8s.io/v1 discovery.k8s.io/v1beta1 events.k8s.io/v1 events.k8s.io/v1beta1 \
extensions/v1beta1 flowcontrol.apiserver.k8s.io/v1 flowcontrol.apiserver.k8s.io/v1beta1 \
flowcontrol.apiserver.k8s.io/v1beta2 flowcontrol.apiserver.k8s.io/v1beta3 lifecycle.k8s.io/v1alpha1 \
networking.k8s.io/v1 networking.k8s.io/v1beta1 node.k8s.io/v1 node.k8s.io/v1alpha1 node.k8s.io/v1beta1 policy/v1 \
policy/v1beta1 rbac.authorization.k8s.io/v1 rbac.authorization.k8s.io/v1beta1 rbac.authorization.k8s.io/v1alpha1 \
resource.k8s.io/v1 resource.k8s.io/v1beta2 resource.k8s.io/v1beta1 resource.k8s.io/v1alpha3 \
scheduling.k8s.io/v1alpha3 scheduling.k8s.io/v1beta1 scheduling.k8s.io/v1 storage.k8s.io/v1beta1 storage.k8s.io/v1 \
storage.k8s.io/v1alpha1 storagemigration.k8s.io/v1 storagemigration.k8s.io/v1beta1 apiextensions.k8s.io/v1beta1 \
apiextensions.k8s.io/v1";

// Its own --version takes the place of that of every command.
#[derive(Args)]
#[command(override_usage = "skep template [OPTIONS] [NAME] CHART", disable_version_flag = true)]
pub struct Arguments {
    /// The chart: a folder, an archive, oci://HOST/PATH/CHART, or with --catalog its name there; if there are two, the release's name goes
    /// before it
    #[arg(required = true, num_args = 1..=2, value_name = "CHART")]
    name_and_chart: Vec<String>,
    /// As in helm template: accepted, and the release is called release-name all the same
    #[arg(short, long)]
    generate_name: bool,
    /// A template of the release's name, as in 'web-{{ randAlphaNum 5 | lower }}'
    #[arg(long, value_name = "TEMPLATE")]
    name_template: Option<String>,
    #[command(flatten)]
    place: fetch::Place,
    /// The release's namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    values: Values,
    /// The Kubernetes that charts are told of
    #[arg(long, default_value = KUBE_VERSION)]
    kube_version: String,
    /// What charts are told that the cluster serves besides Kubernetes' own: group/version or group/version/kind
    #[arg(short, long, value_delimiter = ',')]
    api_versions: Vec<String>,
    /// Render as for an upgrade
    #[arg(long)]
    is_upgrade: bool,
    /// Print the objects of crds/ too
    #[arg(long)]
    include_crds: bool,
    /// Do not judge the values by the chart's schemas
    #[arg(long)]
    skip_schema_validation: bool,
    /// Write what comes of each template to a file of its name below this folder
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["show_only", "post_renderer"])]
    output_dir: Option<PathBuf>,
    /// Leave hooks out
    #[arg(long)]
    no_hooks: bool,
    /// Leave the hooks out that are tests
    #[arg(long)]
    skip_tests: bool,
    /// Print what comes of this template only, as in templates/service.yaml
    #[arg(short, long, value_name = "TEMPLATE")]
    show_only: Vec<String>,
    /// A program that gets all objects but hooks, and says what they become: a path, or a name in $PATH
    #[arg(long, value_name = "PROGRAM", conflicts_with = "show_only")]
    post_renderer: Option<PathBuf>,
    /// An argument for it; may be repeated
    #[arg(
        long = "post-renderer-args",
        value_name = "ARGUMENT",
        requires = "post_renderer",
        allow_hyphen_values = true
    )]
    post_renderer_arguments: Vec<String>,
}

/// A piece of what is printed.
struct Piece {
    path: String,
    text: String,
}

pub async fn run(arguments: &Arguments, charts: Charts) -> Result<u8> {
    let (name, path) = name_and_chart(arguments)?;
    let chart = match arguments.place.fetch(path, charts).await? {
        Some(fetched) => chart::whole(fetched)?,
        None => chart::read(&PathBuf::from(path))?,
    };
    let values = arguments.values.read()?;
    let release =
        Release { name, namespace: arguments.namespace.clone(), revision: 1, is_upgrade: arguments.is_upgrade };
    let served = API_VERSIONS.split(' ').map(str::to_owned).chain(arguments.api_versions.iter().cloned()).collect();
    let capabilities = Capabilities::of(&arguments.kube_version, served);
    let what = || format!("render the chart {path}");
    let render = if arguments.skip_schema_validation { helm::render_unchecked } else { helm::render };
    let rendered = render(&chart, &values, &release, &capabilities, world()).with_context(what)?;
    let sorted = manifests::sorted(&rendered).with_context(what)?;

    let mut objects = Vec::new();
    if arguments.include_crds {
        let crds = helm::crds(&chart, &values).with_context(what)?;
        let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
        objects.extend(crds.into_iter().map(|file| Piece { text: text(&file.data), path: file.name }));
    }
    objects.extend(sorted.objects.into_iter().map(|object| Piece { path: object.path, text: object.content }));
    let is_test = |hook: &Hook| hook.events.iter().any(|event| event == "test");
    let hooks = sorted.hooks.into_iter().filter(|hook| !(arguments.no_hooks || arguments.skip_tests && is_test(hook)));
    let hooks: Vec<_> = hooks.map(|hook| Piece { path: hook.manifest.path, text: hook.manifest.content }).collect();
    if let Some(folder) = &arguments.output_dir {
        files::write(folder, &objects, &hooks)?;
        return Ok(DONE);
    }
    let [objects, hooks] = only([objects, hooks], &arguments.show_only, chart.name())?;
    let manifest = together(&objects);
    let manifest = match &arguments.post_renderer {
        Some(program) => post_render::run(program, &arguments.post_renderer_arguments, manifest)?,
        None => manifest,
    };
    output::text(&printed(&manifest, &hooks));
    Ok(DONE)
}

/// The release's name, and where the chart is.
fn name_and_chart(arguments: &Arguments) -> Result<(String, &str)> {
    let (name, path) = match (arguments.name_and_chart.as_slice(), &arguments.name_template) {
        ([_, _], Some(_)) => bail!("cannot set --name-template and also specify a name"),
        ([_, _], None) if arguments.generate_name => bail!("cannot set --generate-name and also specify a name"),
        ([name, chart], None) => (name.clone(), chart),
        ([chart], Some(template)) => (helm::render_text("name-template", template, world())?, chart),
        // Helm generates none here either.
        ([chart], None) => ("release-name".to_owned(), chart),
        _ => bail!("expected [NAME] CHART"),
    };
    if name.len() > NAME_BYTES_MAX || !labels::subdomain(&name).is_empty() {
        bail!(
            "release name {name:?}: invalid release name, must match regex {NAME} and the length must not be longer than {NAME_BYTES_MAX}"
        );
    }
    Ok((name, path))
}

/// As Helm prints it: white space around all objects is cut off, that around one of them is not.
fn printed(manifest: &str, hooks: &[Piece]) -> String {
    format!("{}\n{}", manifest.trim(), together(hooks))
}

fn together(pieces: &[Piece]) -> String {
    pieces.iter().map(|Piece { path, text }| format!("---\n# Source: {path}\n{text}\n")).collect()
}

/// What comes of these templates, which are named by their path in the chart; all of it if none is.
fn only(all: [Vec<Piece>; 2], templates: &[String], chart: &str) -> Result<[Vec<Piece>; 2]> {
    if templates.is_empty() {
        return Ok(all);
    }
    let is = |piece: &Piece, template: &str| piece.path.split_once('/').is_some_and(|(_, inner)| inner == template);
    for template in templates {
        if !all.iter().flatten().any(|piece| is(piece, template)) {
            bail!("could not find template {template} in chart {chart}, or nothing comes of it");
        }
    }
    let picked = |piece: &Piece| templates.iter().any(|template| is(piece, template));
    Ok(all.map(|pieces| pieces.into_iter().filter(picked).collect()))
}

/// Nothing of a cluster; keys and passwords are new with each run.
fn world() -> World {
    World::without_cluster(Timestamp::now(), |bytes| rand::rng().fill_bytes(bytes), key)
}

/// A key that a chart asks for, in DER.
///
/// # Errors
/// Why there is none.
pub fn key(kind: KeyKind) -> Result<Vec<u8>, String> {
    let made = match kind {
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048),
        KeyKind::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_4096),
        KeyKind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyKind::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
    };
    made.map(|key| key.serialize_der()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(path: &str, text: &str) -> Piece {
        Piece { path: path.into(), text: text.into() }
    }

    #[test]
    fn templates_are_picked_by_their_path_in_the_chart() {
        let all = || {
            let objects = ["c/templates/a.yaml", "c/charts/d/templates/a.yaml"].map(|path| piece(path, ""));
            [objects.into(), vec![piece("c/templates/b.yaml", "")]]
        };
        let picked = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let paths = |pieces: Vec<Piece>| pieces.into_iter().map(|piece| piece.path).collect::<Vec<_>>();
            only(all(), &names, "c").map(|all| all.map(paths).concat())
        };
        let both = picked(&["templates/b.yaml", "charts/d/templates/a.yaml"]).unwrap();
        assert_eq!(both, ["c/charts/d/templates/a.yaml", "c/templates/b.yaml"]);
        assert_eq!(picked(&[]).unwrap().len(), 3);
        let error = picked(&["templates/c.yaml"]).unwrap_err().to_string();
        assert_eq!(error, "could not find template templates/c.yaml in chart c, or nothing comes of it");
    }

    fn arguments(words: &[&str]) -> Arguments {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let line = ["template"].iter().chain(words);
        <Line as clap::Parser>::try_parse_from(line).unwrap().arguments
    }

    #[test]
    fn the_release_is_named_by_the_user_or_by_a_template_and_never_by_both() {
        let name = |words: &[&str]| {
            let arguments = arguments(words);
            name_and_chart(&arguments).map(|(name, chart)| format!("{name} {chart}")).map_err(|error| error.to_string())
        };
        assert_eq!(name(&["c"]), Ok("release-name c".into()));
        assert_eq!(name(&["c", "-g"]), Ok("release-name c".into()));
        assert_eq!(name(&["a", "c"]), Ok("a c".into()));
        assert_eq!(name(&["c", "--name-template", "a-{{ \"X\" | lower }}"]), Ok("a-x c".into()));
        assert_eq!(name(&["a", "c", "-g"]), Err("cannot set --generate-name and also specify a name".into()));
        let both = name(&["a", "c", "--name-template", "b"]);
        assert_eq!(both, Err("cannot set --name-template and also specify a name".into()));
        let unknown = name(&["c", "--name-template", "{{ nope }}"]);
        assert_eq!(unknown, Err("template: name-template:1: function \"nope\" not defined".into()));
        let wrong = name(&["A B", "c"]).unwrap_err();
        assert!(
            wrong.starts_with("release name \"A B\": invalid release name, must match regex ^[a-z0-9]("),
            "{wrong}"
        );
        assert!(name(&[&"a".repeat(NAME_BYTES_MAX), "c"]).is_ok());
        assert!(name(&[&"a".repeat(NAME_BYTES_MAX + 1), "c"]).is_err());
    }

    #[test]
    fn white_space_is_cut_off_around_all_objects_and_not_between_them() {
        let objects = [piece("c/crds/a.yaml", "a: 1\n\n"), piece("c/templates/b.yaml", "b: 1\n")];
        let text = printed(&together(&objects), &[piece("c/templates/h.yaml", "h: 1")]);
        let expected = "---\n# Source: c/crds/a.yaml\na: 1\n\n\n---\n# Source: c/templates/b.yaml\nb: 1\n---\n# Source: c/templates/h.yaml\nh: 1\n";
        assert_eq!(text, expected);
    }
}
