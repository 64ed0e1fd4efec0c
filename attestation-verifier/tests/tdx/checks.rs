//! What is genuine and refused: every check that a policy decides, with a quote that fails it and carries good
//! signatures; and the three that no policy decides. Exit 4 unless said otherwise.

use std::collections::BTreeSet;

use attestation_verifier::policy::check_ids;
use touchstone_formats::evidence::Tee;
use touchstone_testkit::events::event_type;
use touchstone_testkit::intel::IsvLevel;
use touchstone_testkit::machine::TdxMachine;
use touchstone_testkit::tdx::{TdReport, attributes};

use crate::checks_case::{Case, measured, one, pinned, strict, strict_v4, tolerated, undefined};

const DAY: u64 = 86_400;

/// One row of the table.
struct Lie {
    name: String,
    honest: fn() -> Case,
    change: Box<dyn Fn(&mut Case)>,
    exit: u8,
    deciding: &'static str,
}

fn lie(
    deciding: &'static str,
    name: &str,
    honest: fn() -> Case,
    change: impl Fn(&mut Case) + 'static,
) -> Lie {
    Lie {
        name: name.to_owned(),
        honest,
        change: Box::new(change),
        exit: if deciding == "tdx.chain.crl" || deciding == "tdx.collateral.age" {
            5
        } else {
            4
        },
        deciding,
    }
}

/// The quote says something that the strict template refuses.
fn says(id: &'static str, change: impl Fn(&mut TdReport) + 'static) -> Lie {
    lie(id, "the quote says so", strict, move |case| {
        case.report(&change)
    })
}

/// The quote stays; the policy expects something else.
fn expects(id: &'static str, honest: fn() -> Case, value: &'static str) -> Lie {
    lie(id, value, honest, move |case| case.set(id, value))
}

/// Something that is pinned is otherwise.
fn otherwise(id: &'static str, change: impl Fn(&mut Case) + 'static) -> Lie {
    lie(id, "otherwise than pinned", pinned, change)
}

#[test]
fn every_check_has_a_lie() {
    let mut lies = fields();
    lies.extend(levels());
    lies.extend(platforms());
    lies.extend(logs());
    let told: BTreeSet<&str> = lies.iter().map(|lie| lie.deciding).collect();
    let unmade = ["tdx.tcb.level", "tdx.module.identity", "tdx.collateral.age"];
    for id in check_ids(Tee::Tdx).iter().map(|spec| spec.id).chain(unmade) {
        assert!(told.contains(id), "no lie about {id}");
    }
    for lie in lies {
        let name = format!("{}: {}", lie.deciding, lie.name);
        let mut case = (lie.honest)();
        let verdict = case.judge();
        assert_eq!(
            verdict.exit(),
            6,
            "the honest twin of {name}: {}",
            verdict.words()
        );
        (lie.change)(&mut case);
        let verdict = case.judge();
        let decided = (verdict.exit(), verdict.deciding());
        assert_eq!(
            decided,
            (lie.exit, Some(lie.deciding)),
            "{name}: {}",
            verdict.words()
        );
    }
}

fn fields() -> Vec<Lie> {
    vec![
        expects("tdx.version", strict, "{ expect = [4] }"),
        expects("tdx.version", strict_v4, "{ expect = 5 }"),
        expects("tdx.version", strict, "{ expect = [] }"),
        lie(
            "tdx.module.signer",
            "a policy that names another",
            strict,
            |case| {
                case.set("tdx.module.signer", &one(&[1; 48]));
            },
        ),
        lie(
            "tdx.module.attributes",
            "a policy that names others",
            strict,
            |case| {
                case.set("tdx.module.attributes", &one(&[1; 8]));
            },
        ),
        lie(
            "tdx.module.attributes",
            "TCB info that names others",
            strict,
            |case| {
                case.report(|r| r.seam_attributes[0] = 2);
                for identity in &mut case.scene.machine.tcb_info.tdx_module_identities {
                    identity.attributes[0] = 2;
                }
            },
        ),
        lie(
            "tdx.module.signer",
            "TCB info that names another",
            strict,
            |case| {
                case.report(|r| r.mr_signer_seam[47] = 1);
                for identity in &mut case.scene.machine.tcb_info.tdx_module_identities {
                    identity.mrsigner[47] = 1;
                }
            },
        ),
        otherwise("tdx.module.measurement", |case| {
            case.report(|r| r.mr_seam[0] ^= 1)
        }),
        says("tdx.attributes.debug", |r| {
            r.td_attributes |= attributes::DEBUG
        }),
        says("tdx.attributes.sept_ve_disable", |r| {
            r.td_attributes &= !attributes::SEPT_VE_DISABLE;
        }),
        says("tdx.attributes.migratable", |r| {
            r.td_attributes |= attributes::MIGRATABLE
        }),
        says("tdx.attributes.perfmon", |r| {
            r.td_attributes |= attributes::PERFMON
        }),
        says("tdx.attributes.key_locker", |r| {
            r.td_attributes |= attributes::KL
        }),
        says("tdx.attributes.pks", |r| r.td_attributes |= attributes::PKS),
        says("tdx.attributes.others", |r| r.td_attributes |= 1 << 1),
        says("tdx.attributes.others", |r| r.td_attributes |= 1 << 7),
        says("tdx.attributes.others", |r| r.td_attributes |= 1 << 27),
        says("tdx.attributes.others", |r| r.td_attributes |= 1 << 32),
        says("tdx.attributes.others", |r| r.td_attributes |= 1 << 62),
        says("tdx.xfam.fixed", |r| r.xfam &= !1),
        says("tdx.xfam.fixed", |r| r.xfam &= !2),
        says("tdx.xfam.fixed", |r| r.xfam |= 1 << 3),
        says("tdx.xfam.fixed", |r| r.xfam |= 1 << 63),
        otherwise("tdx.xfam", |case| case.report(|r| r.xfam = 0x3)),
        says("tdx.mrtd", |r| r.mr_td[47] ^= 1),
        says("tdx.mrtd", |r| r.mr_td = [0; 48]),
        expects("tdx.mrtd", strict, "{ expect = [] }"),
        lie("tdx.rtmr0", "no log, another register", strict, |case| {
            case.log = |_| None;
            case.report(|r| r.rtmr[0] = [0; 48]);
        }),
        lie("tdx.rtmr1", "one more event", strict, |case| {
            case.scene
                .machine
                .measure(1, event_type::SEPARATOR, b"more");
        }),
        lie("tdx.rtmr2", "one more event", strict, |case| {
            case.scene
                .machine
                .measure(2, event_type::IPL, b"init=/bin/sh");
        }),
        expects("tdx.rtmr2", strict, "{ expect = [] }"),
        lie(
            "tdx.rtmr3",
            "no log, a register that is used",
            strict,
            |case| {
                case.log = |_| None;
                case.report(|r| r.rtmr[3][0] = 1);
            },
        ),
        expects(
            "tdx.rtmr3",
            measured,
            "{ expect = \"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\" }",
        ),
        says("tdx.mr_config_id", |r| r.mr_config_id[0] = 1),
        says("tdx.mr_owner", |r| r.mr_owner[47] = 1),
        says("tdx.mr_owner_config", |r| r.mr_owner_config[20] = 1),
        says("tdx.mr_service_td", |r| {
            r.v1_5.as_mut().expect("a 1.5 body").mr_service_td[0] = 1;
        }),
        lie(
            "tdx.mr_service_td",
            "a service TD is expected, and 1.0 does not say",
            strict_v4,
            |case| {
                case.set("tdx.mr_service_td", &one(&[9; 48]));
            },
        ),
    ]
}

fn levels() -> Vec<Lie> {
    let mut lies = vec![
        lie("tdx.tcb.evaluation_number", "TCB info's", strict, |case| {
            case.scene.machine.tcb_info.tcb_evaluation_data_number = 16;
        }),
        lie(
            "tdx.tcb.evaluation_number",
            "the QE identity's",
            strict,
            |case| {
                case.scene.machine.qe_identity.tcb_evaluation_data_number = 16;
            },
        ),
        lie(
            "tdx.tcb.level",
            "PCESVN below every level",
            strict,
            |case| {
                case.platform(|p| p.pce_svn = 4);
            },
        ),
        lie(
            "tdx.tcb.level",
            "SGX component below every level",
            strict,
            |case| {
                case.platform(|p| p.set_svn(0, 1));
            },
        ),
        lie(
            "tdx.tcb.level",
            "TDX component below every level",
            strict,
            |case| {
                case.report(|r| r.tee_tcb_svn[2] = 0);
            },
        ),
        lie(
            "tdx.tcb.level",
            "the module's ISVSVN below every level",
            strict,
            |case| {
                case.report(|r| r.tee_tcb_svn[0] = 1);
            },
        ),
        lie(
            "tdx.tcb.level",
            "the quoting enclave's ISVSVN below every level",
            strict,
            |case| {
                case.scene.machine.report.qe_report.isv_svn = 1;
            },
        ),
        lie(
            "tdx.tcb.level",
            "a present that reaches no level",
            strict,
            |case| {
                case.report(|r| r.v1_5.as_mut().expect("a 1.5 body").tee_tcb_svn_2 = [0; 16]);
            },
        ),
        // The module of another major version has an identity of its own, or none.
        lie(
            "tdx.tcb.level",
            "a module of an unknown major version",
            strict,
            |case| {
                case.report(|r| r.tee_tcb_svn[1] = 9);
            },
        ),
        lie("tdx.module.identity", "another signer", strict, |case| {
            case.report(|r| r.mr_signer_seam[0] = 1);
        }),
        lie("tdx.module.identity", "other attributes", strict, |case| {
            case.report(|r| r.seam_attributes[7] = 0x80);
        }),
        lie(
            "tdx.module.identity",
            "attributes outside of the mask",
            strict,
            |case| {
                case.report(|r| r.seam_attributes[7] = 0x80);
                for identity in &mut case.scene.machine.tcb_info.tdx_module_identities {
                    identity.attributes_mask = [0; 8];
                }
                case.set(
                    "tdx.module.attributes",
                    "{ waive = \"to see what is left\" }",
                );
            },
        ),
        lie("tdx.tcb.grace", "the day after", tolerated, |case| {
            case.set("tdx.tcb.grace", "{ expect = \"2026-09-20\" }");
        }),
        expects("tdx.tcb.grace", tolerated, "{ expect = \"none\" }"),
        expects(
            "tdx.tcb.grace",
            tolerated,
            "{ waive = \"late\", until = \"2026-09-20\" }",
        ),
        expects(
            "tdx.tcb.advisories",
            tolerated,
            "{ expect = [\"INTEL-SA-99001\"] }",
        ),
        expects("tdx.tcb.advisories", tolerated, "{ expect = [] }"),
        expects("tdx.tcb.status", tolerated, "{ expect = [\"UpToDate\"] }"),
        expects("tdx.tcb.status", strict, "{ expect = [\"OutOfDate\"] }"),
    ];
    for status in [
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
    ] {
        // Whatever the level names, the status has to be named too; and the other way round.
        lies.push(lie("tdx.tcb.status", status, strict, move |case| {
            case.scene.machine.tcb_info.set_status(status, &[]);
        }));
        lies.push(lie("tdx.tcb.advisories", status, strict, move |case| {
            case.scene
                .machine
                .tcb_info
                .set_status(status, &["INTEL-SA-99009"]);
            case.set("tdx.tcb.status", &format!("{{ expect = \"{status}\" }}"));
        }));
    }
    // What Intel says of platforms alone means nothing of the others.
    for (name, mistake) in MISPLACED {
        lies.push(lie("tdx.tcb.level", name, strict, |case| {
            mistake(&mut case.scene.machine);
            waive_all(case);
        }));
    }
    // Revoked, wherever it stands: nothing helps.
    for (name, revoke) in REVOKED {
        lies.push(lie("tdx.tcb.level", name, strict, |case| {
            revoke(&mut case.scene.machine);
            waive_all(case);
        }));
    }
    lies
}

type Revoke = fn(&mut TdxMachine);

const MISPLACED: &[(&str, Revoke)] = &[
    ("a module that needs configuration", |m| {
        m.tcb_info.tdx_module_identities[1].tcb_levels[0].tcb_status = "ConfigurationNeeded".into();
    }),
    ("a quoting enclave that needs hardening", |m| {
        m.qe_identity.set_status("SWHardeningNeeded", &[]);
    }),
];

const REVOKED: &[(&str, Revoke)] = &[
    ("a revoked platform", |m| {
        m.tcb_info.set_status("Revoked", &[])
    }),
    ("a revoked quoting enclave", |m| {
        m.qe_identity.set_status("Revoked", &[])
    }),
    ("a revoked module", |m| {
        for level in m
            .tcb_info
            .tdx_module_identities
            .iter_mut()
            .flat_map(|i| &mut i.tcb_levels)
        {
            level.tcb_status = "Revoked".into();
        }
    }),
    ("a module that is revoked by now", |m| {
        let levels = &mut m.tcb_info.tdx_module_identities[1].tcb_levels;
        let next = m.report.report.tee_tcb_svn[0] + 1;
        levels.insert(0, IsvLevel::new(next.into(), 1_700_000_000, "Revoked", &[]));
        let now = m.report.report.v1_5.as_mut().expect("a 1.5 body");
        now.tee_tcb_svn_2[0] = next;
    }),
];

/// Waives all that a policy can.
fn waive_all(case: &mut Case) {
    for spec in check_ids(Tee::Tdx) {
        case.set(spec.id, "{ waive = \"all of it\", until = \"2999-12-31\" }");
    }
}

fn platforms() -> Vec<Lie> {
    vec![
        lie("tdx.chain.crl", "no list of the PCK CA", strict, |case| {
            case.scene.collateral(|_, c| c.pck_crl = None);
        }),
        lie("tdx.chain.crl", "no list of the root", strict, |case| {
            case.scene.collateral(|_, c| c.root_ca_crl = None);
        }),
        lie(
            "tdx.chain.crl",
            "an old list of the PCK CA",
            strict,
            |case| {
                let list = &mut case.scene.machine.pck_crl;
                (list.this_update, list.next_update) =
                    (list.this_update - 60 * DAY, Some(list.this_update));
            },
        ),
        lie("tdx.chain.crl", "a list of tomorrow", strict, |case| {
            let list = &mut case.scene.machine.root_crl;
            (list.this_update, list.next_update) = (
                list.this_update + 9 * DAY,
                Some(list.this_update + 99 * DAY),
            );
        }),
        lie("tdx.collateral.age", "TCB info", strict, |case| {
            case.scene.machine.tcb_info.issue_date -= 31 * DAY;
        }),
        lie("tdx.collateral.age", "QE identity", strict, |case| {
            case.scene.machine.qe_identity.issue_date -= 31 * DAY;
        }),
        lie("tdx.collateral.age", "the PCK CA's list", strict, |case| {
            case.scene.machine.pck_crl.this_update -= 31 * DAY;
        }),
        otherwise("tdx.platform.instance", |case| {
            case.platform(|p| p.ppid[0] ^= 1);
        }),
        expects("tdx.platform.instance", pinned, "{ expect = [] }"),
        otherwise("tdx.platform.fmspc", |case| {
            case.set("tdx.platform.fmspc", &one(&[1; 6]))
        }),
        expects("tdx.platform.ca", strict, "{ expect = \"processor\" }"),
        expects("tdx.platform.ca", undefined, "{ expect = [\"platform\"] }"),
        lie("tdx.platform.integrity", "standard", strict, |case| {
            case.platform(|p| p.sgx_type = 0)
        }),
        lie("tdx.platform.integrity", "scalable", strict, |case| {
            case.platform(|p| p.sgx_type = 1);
            case.set(
                "tdx.platform.integrity",
                "{ expect = \"scalable-with-integrity\" }",
            );
        }),
        otherwise("tdx.platform.smt", |case| {
            case.configuration(|c| c.smt_enabled = Some(false))
        }),
        otherwise("tdx.platform.smt", |case| {
            case.configuration(|c| c.smt_enabled = None)
        }),
        otherwise("tdx.platform.dynamic", |case| {
            case.configuration(|c| c.dynamic_platform = Some(true));
        }),
        otherwise("tdx.platform.cached_keys", |case| {
            case.configuration(|c| c.cached_keys = Some(true));
        }),
        expects(
            "tdx.platform.cached_keys",
            undefined,
            "{ expect = [\"yes\", \"no\"] }",
        ),
    ]
}

fn logs() -> Vec<Lie> {
    vec![
        expects("tdx.event_log", strict, "{ expect = [\"absent\"] }"),
        lie(
            "tdx.event_log",
            "none, where it has to be there",
            strict,
            |case| {
                case.set("tdx.event_log", "{ expect = \"replayed\" }");
                case.log = |_| None;
            },
        ),
        lie("tdx.event_log", "of another TD", strict, |case| {
            case.log = |m| {
                let mut other = m.events.clone();
                other.events.pop();
                Some(other.to_evidence())
            };
        }),
        lie("tdx.event_log", "cut off", strict, |case| {
            case.log = |m| {
                let mut log = m.events.to_evidence();
                log.data.0.pop();
                Some(log)
            };
        }),
        lie("tdx.event_log", "of an unknown format", strict, |case| {
            case.log = |m| {
                let mut log = m.events.to_evidence();
                log.format = "aael".into();
                Some(log)
            };
        }),
        lie(
            "tdx.rtmr3.events",
            "one that nobody expects",
            measured,
            |case| {
                case.scene
                    .machine
                    .measure(3, event_type::EVENT_TAG, b"another");
                let rtmr3 = case.scene.machine.report.report.rtmr[3];
                case.set("tdx.rtmr3", &one(&rtmr3));
            },
        ),
        lie("tdx.rtmr3.events", "one twice", measured, |case| {
            case.scene
                .machine
                .measure(3, event_type::EVENT_TAG, b"application");
            let rtmr3 = case.scene.machine.report.report.rtmr[3];
            case.set("tdx.rtmr3", &one(&rtmr3));
        }),
        lie(
            "tdx.rtmr3.events",
            "none of those that are expected",
            measured,
            |case| {
                case.scene
                    .machine
                    .events
                    .events
                    .retain(|event| event.mr_index != 4);
                case.report(|r| r.rtmr[3] = [0; 48]);
                case.set("tdx.rtmr3", &one(&[0; 48]));
            },
        ),
        lie("tdx.rtmr3.events", "no log", measured, |case| {
            case.log = |_| None
        }),
        lie(
            "tdx.rtmr3.events",
            "a log that does not replay",
            measured,
            |case| {
                case.log = |m| {
                    let mut other = m.events.clone();
                    other.events.remove(0);
                    Some(other.to_evidence())
                };
                case.set("tdx.event_log", "{ waive = \"to see what it achieves\" }");
            },
        ),
        expects("tdx.rtmr3.events", strict, "{ expect = \"app-id=*\" }"),
    ]
}
