use super::*;

fn teams(names: &[&str]) -> TeamScope {
    TeamScope::Teams(Arc::new(names.iter().map(|name| Arc::from(*name)).collect()))
}

fn principal(grants: &[(&[Role], TeamScope)]) -> Principal {
    let grant = |(roles, scope): &(&[Role], TeamScope)| {
        Arc::new(RoleGrant { roles: roles.to_vec(), scope: scope.clone() })
    };
    Principal {
        name: "p".into(),
        kind: PrincipalKind::ServiceToken,
        grants: grants.iter().map(grant).collect(),
    }
}

#[test]
fn each_role_has_what_it_is_for_and_nothing_else() {
    use Permission::{
        CheckPolicy, Decide, LiftCooldowns, ManageKeys, Pause, ReadAlerts, ReadAudit, ReadDecisions,
        ReadKeys, ReadMetrics, ReadPauses, ReadPolicy, ReadSpend, ReadStatus, ReadTeamPolicy, ReadUpstream,
        Record, ReportDrift, RotateKeys, TestReceivers,
    };
    for (role, permissions) in [
        (Role::Admin, Permission::ALL.as_slice()),
        (
            Role::Operator,
            &[
                ReadKeys,
                RotateKeys,
                Pause,
                ReadPauses,
                ReadUpstream,
                LiftCooldowns,
                ReadAlerts,
                ReadDecisions,
                TestReceivers,
                ReportDrift,
                ReadPolicy,
                ReadTeamPolicy,
                CheckPolicy,
                ReadStatus,
                ReadMetrics,
            ],
        ),
        (
            Role::Auditor,
            &[
                ReadSpend,
                ReadKeys,
                ReadPauses,
                ReadAudit,
                ReadUpstream,
                ReadAlerts,
                ReadDecisions,
                ReadPolicy,
                ReadTeamPolicy,
                ReadStatus,
                ReadMetrics,
            ],
        ),
        (Role::Viewer, &[ReadSpend, ReadAlerts, ReadDecisions, ReadTeamPolicy]),
        (Role::Monitor, &[ReadStatus, ReadMetrics]),
        (Role::Gateway, &[Decide, Record]),
        (
            Role::TeamAdmin,
            &[ReadSpend, ReadKeys, ManageKeys, RotateKeys, ReadAlerts, ReadDecisions, ReadTeamPolicy],
        ),
    ] {
        let has: Vec<_> = Permission::ALL.into_iter().filter(|permission| role.has(*permission)).collect();
        assert_eq!(has, permissions, "{role}");
    }
}

#[test]
fn grants_add_up_and_one_of_teams_is_not_one_of_the_organization() {
    let unbound = principal(&[]);
    let bound =
        principal(&[(&[Role::Viewer], teams(&["a"])), (&[Role::Viewer, Role::Gateway], teams(&["b"]))]);
    let mixed = principal(&[(&[Role::TeamAdmin], teams(&["a"])), (&[Role::Viewer], TeamScope::All)]);
    for (who, permission, team, permitted) in [
        (&unbound, Permission::ReadSpend, Some("a"), false),
        (&bound, Permission::ReadSpend, Some("a"), true),
        (&bound, Permission::ReadSpend, Some("b"), true),
        (&bound, Permission::ReadSpend, Some("c"), false),
        (&bound, Permission::ReadSpend, None, false),
        (&bound, Permission::Decide, Some("a"), false),
        (&bound, Permission::Decide, Some("b"), true),
        (&mixed, Permission::ReadSpend, None, true),
        (&mixed, Permission::ManageKeys, Some("a"), true),
        (&mixed, Permission::ManageKeys, Some("b"), false),
        (&mixed, Permission::ManageKeys, None, false),
        (&mixed, Permission::Decide, Some("a"), false),
    ] {
        assert_eq!(who.permits(permission, team), permitted, "{permission} {team:?} {who:?}");
    }
    assert_eq!(bound.scope(Permission::ReadSpend), Some(teams(&["a", "b"])));
    assert_eq!(bound.scope(Permission::Pause), None);
}

#[test]
fn no_path_is_there_twice_and_none_is_found_by_less_than_its_name() {
    for (index, (path, need)) in RPCS.iter().enumerate() {
        assert_eq!(need_of(path), Some(*need));
        assert!(RPCS.iter().skip(index + 1).all(|(other, _)| other != path), "{path} is there twice");
        for other in [path.trim_start_matches('/'), &path.to_lowercase(), &format!("{path}/"), ""] {
            assert_eq!(need_of(other), None, "{other}");
        }
    }
}
