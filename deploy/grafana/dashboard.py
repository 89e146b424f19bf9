#!/usr/bin/env python3
"""Makes the dashboard beside it: deploy/grafana/dashboard.py > deploy/grafana/tollgate.json

Each panel is a title, its unit, and its queries with their legends. A test runs every query against a real Prometheus.
"""

import json

OWN = 'organization=~"$organization",team=~"$team"'
RATE = "$__rate_interval"

ROWS = [
    ("Decisions", [
        ("Decisions", "reqps", [
            (f"sum by (decision) (rate(tollgate_decisions_total{{{OWN}}}[{RATE}]))", "{{decision}}"),
        ]),
        ("Denials by reason", "reqps", [
            (f'sum by (reason) (rate(tollgate_decisions_total{{{OWN},decision="denied"}}[{RATE}]))', "{{reason}}"),
        ]),
        ("Decision time", "s", [
            (f"histogram_quantile({q}, sum by (le) (rate(tollgate_decision_duration_seconds_bucket[{RATE}])))", name)
            for q, name in [(0.5, "half"), (0.99, "99 of 100")]
        ]),
        ("Requests in flight, waiting, unsettled", "short", [
            (f"sum(max by (organization, team) (tollgate_requests_in_flight{{{OWN}}}))", "in flight"),
            (f"sum(tollgate_requests_waiting{{{OWN}}}) or vector(0)", "waiting"),
            (f"sum(max by (organization, team) (tollgate_reservations_unsettled{{{OWN}}}))", "unsettled"),
        ]),
    ]),
    ("Money", [
        ("Dollars an hour", "currencyUSD", [
            (f"sum by (team) (rate(tollgate_cost_usd_total{{{OWN}}}[{RATE}])) * 3600", "{{team}}"),
        ]),
        ("Budgets used", "percentunit", [
            (
                f"max by (scope, team, key, period) (tollgate_budget_spent_usd{{{OWN}}})"
                f" / (max by (scope, team, key, period) (tollgate_budget_limit_usd{{{OWN}}}) > 0)",
                "{{scope}} {{team}} {{key}} {{period}}",
            ),
        ]),
        ("Left of budgets", "currencyUSD", [
            (f"min by (scope, team, key, period) (tollgate_budget_remaining_usd{{{OWN}}})", "{{scope}} {{team}} {{key}} {{period}}"),
        ]),
        ("Days until budgets are used up", "d", [
            (
                f"(min by (scope, team, key, period) (tollgate_budget_exhaust_timestamp_seconds{{{OWN}}}) - time()) / 86400",
                "{{scope}} {{team}} {{key}} {{period}}",
            ),
        ]),
        ("Reserved", "currencyUSD", [
            (f"max by (scope, team, key, period) (tollgate_budget_reserved_usd{{{OWN}}})", "{{scope}} {{team}} {{key}} {{period}}"),
        ]),
        ("Tokens", "short", [
            (f"sum by (kind) (rate(tollgate_tokens_total{{{OWN}}}[{RATE}]))", "{{kind}}"),
        ]),
        ("Limits used most", "percentunit", [
            (
                f"topk(10, max by (scope, team, quantity, window) (tollgate_limit_used_ratio{{{OWN}}}))",
                "{{scope}} {{team}} {{quantity}} {{window}}",
            ),
        ]),
    ]),
    ("Reports and Groq", [
        ("Reports of usage", "reqps", [
            (f"sum by (outcome, result) (rate(tollgate_settlements_total{{{OWN}}}[{RATE}]))", "{{outcome}} {{result}}"),
        ]),
        ("Groq's 429", "reqps", [
            (f"sum by (project, model) (rate(tollgate_upstream_rate_limits_total[{RATE}]))", "{{project}} {{model}}"),
        ]),
        ("Cooldowns", "short", [
            ("max by (project, model) (tollgate_cooldowns)", "{{project}} {{model}}"),
        ]),
        ("Groq keys", "short", [
            ("min by (project, name) (tollgate_upstream_key_up)", "{{name}}"),
        ]),
    ]),
    ("The service", [
        ("Calls", "reqps", [
            (
                f"sum by (rpc_method, rpc_response_status_code) (rate(rpc_server_call_duration_seconds_count[{RATE}]))",
                "{{rpc_method}} {{rpc_response_status_code}}",
            ),
        ]),
        ("Store calls, 99 of 100", "s", [
            (
                "histogram_quantile(0.99, sum by (le, operation)"
                f" (rate(tollgate_store_call_duration_seconds_bucket[{RATE}])))",
                "{{operation}}",
            ),
        ]),
        ("Store up, age of the registry", "short", [
            ("min(tollgate_store_up)", "up"),
            ("time() - min(tollgate_snapshot_read_timestamp_seconds)", "age in seconds"),
        ]),
        ("Connections", "short", [
            ("sum by (listener) (tollgate_connections)", "{{listener}}"),
        ]),
        ("CPU", "percentunit", [
            (f"rate(process_cpu_seconds_total[{RATE}])", "{{instance}}"),
        ]),
        ("Memory", "bytes", [
            ("process_resident_memory_bytes", "{{instance}}"),
        ]),
        ("What is in force", "short", [
            ("tollgate_snapshot_info", "{{instance}} {{document}}/{{registry}}"),
            ("tollgate_build_info", "{{instance}} {{version}}"),
        ]),
    ]),
]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(number, x, y, title, unit, queries):
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"h": 8, "w": 8, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": unit, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for place, (expr, legend) in enumerate(queries)
        ],
    }


def variable(name, query):
    return {
        "name": name, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name},
        "includeAll": True, "multi": True, "allValue": ".*", "refresh": 2,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard():
    panels, y = [], 0
    for title, row in ROWS:
        panels.append({
            "id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"h": 1, "w": 24, "x": 0, "y": y},
        })
        y += 1
        for place, (name, unit, queries) in enumerate(row):
            panels.append(panel(len(panels) + 1, place % 3 * 8, y + place // 3 * 8, name, unit, queries))
        y += (len(row) + 2) // 3 * 8
    return {
        "uid": "tollgate",
        "title": "Tollgate",
        "tags": ["tollgate"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            variable("organization", "label_values(tollgate_decisions_total, organization)"),
            variable("team", 'label_values(tollgate_decisions_total{organization=~"$organization"}, team)'),
        ]},
        "panels": panels,
    }


print(json.dumps(dashboard(), indent=1))
