//! FOCUS: what `tollgate report --focus` writes is checked by the FinOps foundation's `focus-validator`, which knows 1.0, and by what 1.2
//! asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    clients::{Missing, install_once, installed, run, skip},
    harness::StoreKind,
    reports::{report, start},
};

const ARGUMENTS: [&str; 3] = ["--month", "2026-11", "--focus"];

/// What focus-validator 1.0.0 asks for as 1.0 and is not: it looks for columns by the names that they had in 0.5.
const OF_OLD_NAMES: [&str; 4] =
    ["InvoiceIssuer_Required", "Provider_Required", "Publisher_Required", "ResourceID_Required"];
/// The same of `ChargeType`; not found in every file.
const OF_AN_OLD_NAME_AT_TIMES: &str = "SkuPriceId_Nullable";

/// The last minor release of Python 3 with a numpy that it works with.
const LAST_PYTHON: u32 = 12;

/// The validator's Python, installed unless it is there.
fn install() -> Result<PathBuf, Missing> {
    let venv = installed("focus");
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/focus/requirements.txt");
    install_once(&venv, &requirements, || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"];
        let sources = [
            "--only-binary=:all:",
            "--no-binary=focus_validator,pandasql",
            "--timeout=15",
            "--retries=2",
            "-r",
        ];
        run(Command::new(venv.join("bin/python")).args(pip).args(sources).arg(&requirements))
    })?;
    Ok(venv)
}

/// Whether the validator works with this machine's Python at all.
fn is_for_this_python() -> bool {
    let minor = Command::new("python3").args(["-c", "import sys; print(sys.version_info.minor)"]).output();
    let minor =
        minor.ok().and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse::<u32>().ok());
    minor.is_none_or(|minor| minor <= LAST_PYTHON)
}

/// What the validator finds wrong with a file.
fn faults(venv: &Path, file: &Path) -> BTreeSet<String> {
    // It finds its list of currencies by a path that begins where it is installed.
    let library =
        fs::read_dir(venv.join("lib")).unwrap().next().unwrap().unwrap().path().join("site-packages");
    let output = Command::new(venv.join("bin/focus-validator"))
        .args(["--validate-version=1.0", "--output-type=console", "--data-file"])
        .arg(file)
        .current_dir(library)
        .output()
        .unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(said.contains("Validation succeeded!") || said.contains("Validation failed!"), "{said}");
    said.lines().filter_map(|line| line.strip_suffix(" failed:")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_validator_of_focus_finds_nothing_but_its_own_old_names() {
    if !is_for_this_python() {
        let notice = "\nSKIPPED: focus-validator was NOT run: it works with Python up to 3.12\n";
        return std::io::Write::write_all(&mut std::io::stderr(), notice.as_bytes()).unwrap();
    }
    let venv = match tokio::task::spawn_blocking(install).await.unwrap() {
        Ok(venv) => venv,
        Err(missing) => return skip("focus-validator", &missing),
    };
    let (server, _) = start(StoreKind::Embedded).await;
    let focus = report(&server, &ARGUMENTS).await;
    assert!(server.stop().await);
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("focus.csv");
    fs::write(&file, &focus).unwrap();
    let expected: BTreeSet<String> = OF_OLD_NAMES.map(str::to_owned).into();
    let mut found = faults(&venv, &file);
    found.remove(OF_AN_OLD_NAME_AT_TIMES);
    assert_eq!(found, expected);
    // It sees what is wrong with a value, or missing.
    fs::write(&file, focus.replace(",USD,", ",Dollars,").replacen("BilledCost", "Billed", 1)).unwrap();
    let found = faults(&venv, &file);
    for fault in ["BillingCurrency_IsCurrencyCode", "BilledCost_Required"] {
        assert!(found.contains(fault), "{fault}: {found:?}");
    }
}

/// The columns that FOCUS 1.2 makes mandatory, and whether a value may be missing.
const MANDATORY: [(&str, bool); 21] = [
    ("BilledCost", false),
    ("BillingAccountId", false),
    ("BillingAccountName", true),
    ("BillingCurrency", false),
    ("BillingPeriodEnd", false),
    ("BillingPeriodStart", false),
    ("ChargeCategory", false),
    ("ChargeClass", true),
    ("ChargeDescription", true),
    ("ChargePeriodEnd", false),
    ("ChargePeriodStart", false),
    ("ContractedCost", false),
    ("EffectiveCost", false),
    ("InvoiceIssuerName", false),
    ("ListCost", false),
    ("PricingQuantity", false),
    ("PricingUnit", false),
    ("ProviderName", false),
    ("PublisherName", false),
    ("ServiceCategory", false),
    ("ServiceName", false),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_row_has_what_focus_1_2_makes_mandatory() {
    let (server, _) = start(StoreKind::Embedded).await;
    let focus = report(&server, &ARGUMENTS).await;
    assert!(server.stop().await);
    let mut reader = csv::Reader::from_reader(focus.as_bytes());
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3, "{focus}");
    let is_decimal = |text: &str| {
        let (whole, fraction) = text.split_once('.').unwrap();
        [whole, fraction]
            .iter()
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    for row in &rows {
        for (column, may_be_missing) in MANDATORY {
            let value = row.get(column).unwrap_or_else(|| panic!("there is no {column}"));
            assert!(may_be_missing || !value.is_empty(), "{column}: {row:?}");
            if column.ends_with("Cost") || column.ends_with("Quantity") {
                assert!(is_decimal(value), "{column}: {value}");
            }
            if column.ends_with("Start") || column.ends_with("End") {
                assert!(value.len() == 20 && value.ends_with('Z'), "{column}: {value}");
            }
        }
        let of = |column: &str| row[column].as_str();
        // 1.2: consumption has its unit, and a charge lies within its period.
        assert_eq!((of("ConsumedQuantity"), of("ConsumedUnit")), (of("PricingQuantity"), of("PricingUnit")));
        assert!(
            of("BillingPeriodStart") <= of("ChargePeriodStart")
                && of("ChargePeriodEnd") <= of("BillingPeriodEnd")
        );
        assert!(of("ChargePeriodStart") < of("ChargePeriodEnd"));
        assert_eq!((of("ChargeCategory"), of("ChargeClass"), of("BillingCurrency")), ("Usage", "", "USD"));
        // Columns of our own are marked as such, and tags are an object.
        assert!(serde_json::from_str::<BTreeMap<String, String>>(of("Tags")).is_ok());
    }
    let own: Vec<_> = rows[0].keys().filter(|column| column.starts_with("x_")).collect();
    assert_eq!(own, ["x_Model", "x_Team"]);
}
