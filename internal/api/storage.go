package api

import (
	"net/http"
	"net/url"

	"incusd/api"
	"incusd/internal/entities"
)

func poolURL(p api.StoragePool) string { return resource("storage-pools", p.Name) }

// poolTag is what the ETag of a pool is made from.
func poolTag(p api.StoragePool) any { return []any{p.Name, p.Driver, p.Description, p.Config} }

func poolPart(p api.StoragePool) api.StoragePoolPut { return p.StoragePoolPut }

// poolsGet lists the storage pools: GET /1.0/storage-pools.
func (s *Server) poolsGet(c *call) (reply, error) {
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return reply{}, err
	}
	pools := entities.Pools(view)
	for i := range pools {
		c.caller.hidePool(&pools[i])
	}
	list, err := listed(c, pools, poolURL)
	return ok(view, list), err
}

// poolGet shows a storage pool: GET /1.0/storage-pools/NAME.
func (s *Server) poolGet(c *call) (reply, error) {
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return reply{}, err
	}
	pool, err := entities.Pool(view, c.name("name"), s.on(c, view))
	if err != nil {
		return reply{}, unlessStale(view, api.AsError(err))
	}
	if c.caller.hidePool(pool) {
		return ok(view, pool), nil
	}
	return ok(view, pool).tag(poolTag(*pool)), nil
}

// hidePool takes what the caller may not see out of a pool, and tells whether there was anything:
// pools are no project's, and their configuration is for who may change it (entities.md §1.1).
func (c *caller) hidePool(p *api.StoragePool) bool {
	if !c.hide(&p.Config) {
		return false
	}
	p.UsedBy, p.Message = c.visible(p.UsedBy), "" // which has devices and folders
	return true
}

// poolsPost makes a storage pool: POST /1.0/storage-pools.
func (s *Server) poolsPost(c *call) (reply, error) {
	post, err := decode[api.StoragePoolsPost](c)
	if err != nil {
		return reply{}, err
	}
	if err := checkNew("storage pool", post.Name); err != nil {
		return reply{}, err
	}
	if post.Driver == "" {
		return reply{}, api.Errorf(api.BadRequest, "No driver provided")
	}
	if err := s.cfg.Entities.CreatePool(c.Context(), post, s.targetOf(c), c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(resource("storage-pools", post.Name)), nil
}

// poolPut changes a storage pool: PUT and PATCH /1.0/storage-pools/NAME.
func (s *Server) poolPut(c *call) (reply, error) {
	next, err := change(c, poolPart, poolTag)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Entities.UpdatePool(c.Context(), c.name("name"), s.targetOf(c), next, c.caller.requestor())
}

// poolDelete removes a storage pool: DELETE /1.0/storage-pools/NAME.
func (s *Server) poolDelete(c *call) (reply, error) {
	return empty, s.cfg.Entities.DeletePool(c.Context(), c.name("name"), c.caller.requestor())
}

// poolResourcesGet measures a storage pool on one member: GET /1.0/storage-pools/NAME/resources.
func (s *Server) poolResourcesGet(c *call) (reply, error) {
	space, err := s.cfg.Entities.PoolResources(c.Context(), c.name("name"))
	return reply{metadata: space}, err
}

func volumeURL(v api.StorageVolume) string { return volumePath(v.Pool, v.Name, v.Project) }

func volumePath(pool, name, project string) string {
	return api.InProject(resource("storage-pools/"+url.PathEscape(pool)+"/volumes/"+api.VolumeCustom, name), project)
}

func volumeTag(v api.StorageVolume) any { return []any{v.Name, v.Type, v.Description, v.Config} }

func volumePart(v api.StorageVolume) api.StorageVolumePut { return v.StorageVolumePut }

// volumeTypes are the protocol's; this daemon has only custom ones.
var volumeTypes = map[string]bool{api.VolumeCustom: true, "container": false, "virtual-machine": false, "image": false}

// customOnly refuses types of volumes that there are none of.
func customOnly(kind string) error {
	custom, known := volumeTypes[kind]
	switch {
	case !known:
		return api.Errorf(api.BadRequest, "Invalid storage volume type %q", kind)
	case !custom:
		return api.Errorf(api.NotFound, "Storage volume not found")
	}
	return nil
}

// volumesGet lists the volumes on a pool: GET /1.0/storage-pools/NAME/volumes[/TYPE].
func (s *Server) volumesGet(c *call) (reply, error) {
	view, scope, err := s.scoped(c)
	if err != nil {
		return reply{}, err
	}
	volumes, err := entities.Volumes(view, c.name("name"), scope.name, scope.all)
	if err != nil {
		return reply{}, unlessStale(view, api.AsError(err))
	}
	volumes = within(&c.caller, volumes, func(v api.StorageVolume) string { return v.Project })
	for i := range volumes {
		volumes[i].UsedBy = c.caller.visible(volumes[i].UsedBy)
	}
	if kind := c.name("type"); kind != "" && kind != api.VolumeCustom {
		if _, known := volumeTypes[kind]; !known {
			return reply{}, customOnly(kind)
		}
		volumes = nil
	}
	list, err := listed(c, volumes, volumeURL)
	return ok(view, list), err
}

// volumeGet shows a volume: GET /1.0/storage-pools/NAME/volumes/custom/VOLUME.
func (s *Server) volumeGet(c *call) (reply, error) {
	if err := customOnly(c.name("type")); err != nil {
		return reply{}, err
	}
	view, scope, err := s.scoped(c)
	if err != nil {
		return reply{}, err
	}
	v, err := entities.Volume(view, c.name("name"), scope.name, c.name("volume"))
	if err != nil {
		return reply{}, unlessStale(view, api.AsError(err))
	}
	v.UsedBy = c.caller.visible(v.UsedBy)
	return ok(view, v).tag(volumeTag(*v)), nil
}

// volumesPost makes a volume: POST /1.0/storage-pools/NAME/volumes[/TYPE].
func (s *Server) volumesPost(c *call) (reply, error) {
	post, err := decode[api.StorageVolumesPost](c)
	if err != nil {
		return reply{}, err
	}
	if post.Type == "" {
		post.Type = c.name("type")
	}
	if post.Type != api.VolumeCustom {
		return reply{}, api.Errorf(api.BadRequest, "Currently not allowed to create storage volumes of type %q", post.Type)
	}
	if err := checkNew("storage volume", post.Name); err != nil {
		return reply{}, err
	}
	project, err := s.project(c)
	if err != nil {
		return reply{}, err
	}
	pool := c.name("name")
	if err := s.cfg.Entities.CreateVolume(c.Context(), pool, project, s.targetOf(c), post, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(volumePath(pool, post.Name, project)), nil
}

// volumePut changes a volume: PUT and PATCH /1.0/storage-pools/NAME/volumes/custom/VOLUME.
func (s *Server) volumePut(c *call) (reply, error) {
	project, err := s.volumeCall(c)
	if err != nil {
		return reply{}, err
	}
	next, err := change(c, volumePart, volumeTag)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Entities.UpdateVolume(c.Context(), c.name("name"), project, c.name("volume"), next, c.caller.requestor())
}

func (s *Server) volumeCall(c *call) (project string, err error) {
	if err := customOnly(c.name("type")); err != nil {
		return "", err
	}
	return s.project(c)
}

// volumePost renames a volume: POST /1.0/storage-pools/NAME/volumes/custom/VOLUME.
func (s *Server) volumePost(c *call) (reply, error) {
	project, err := s.volumeCall(c)
	if err != nil {
		return reply{}, err
	}
	post, err := decode[api.StorageVolumePost](c)
	if err != nil {
		return reply{}, err
	}
	pool := c.name("name")
	if post.Pool != "" && post.Pool != pool {
		return reply{}, api.Errorf(api.NotImplemented, "Moving a storage volume to another pool is not implemented yet")
	}
	if err := checkNew("storage volume", post.Name); err != nil {
		return reply{}, err
	}
	if err := s.cfg.Entities.RenameVolume(c.Context(), pool, project, c.name("volume"), post.Name, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(volumePath(pool, post.Name, project)), nil
}

// volumeDelete removes a volume: DELETE /1.0/storage-pools/NAME/volumes/custom/VOLUME.
func (s *Server) volumeDelete(c *call) (reply, error) {
	project, err := s.volumeCall(c)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Entities.DeleteVolume(c.Context(), c.name("name"), project, c.name("volume"), c.caller.requestor())
}

// resourcesGet describes the machine of one member: GET /1.0/resources.
func (s *Server) resourcesGet(*call) (reply, error) {
	found, err := s.cfg.Resources()
	return reply{status: http.StatusOK, metadata: found}, err
}
